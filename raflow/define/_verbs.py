"""What a flow's body, or a task, can do about its run: hold slots, ask people, pause, suspend."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from raflow import errors
from raflow.define._calls import flow_context
from raflow.define._requests import FlowContext, SlotGate, SlotsWanted, active_task
from raflow.define._where import user_line

if TYPE_CHECKING:
    from raflow.define._questions import Form

T = TypeVar("T")

_IN_FLOWS: Final = "Call it in the body of a flow."


class Concurrency:
    """Holds slots of limits while a `with` or `async with` block runs; see `concurrency`."""

    def __init__(self, wanted: SlotsWanted) -> None:
        """Say what is wanted; nothing is held yet."""
        self._wanted = wanted
        self._held: list[tuple[SlotGate, str]] = []
        """One for each block that is open."""

    def __enter__(self) -> None:
        gate = _slot_gate()
        if active_task.get() is not None and _is_on_loop():
            raise errors.DefinitionError(
                f"concurrency() was entered by `with` in a coroutine at {user_line()}, where its "
                "waiting would stop the calls that share the event loop, those included that hold "
                "the slots. Write `async with`."
            )
        self._held.append((gate, gate.acquire(self._wanted)))

    def __exit__(self, *raised: object) -> None:
        gate, holder = self._held.pop()
        lost = gate.release(holder)
        if lost is not None:
            raise lost

    async def __aenter__(self) -> None:
        gate = _slot_gate()
        self._held.append((gate, await gate.acquire_async(self._wanted)))

    async def __aexit__(self, *raised: object) -> None:
        self.__exit__(*raised)


def concurrency(
    names: str | Iterable[str],
    occupy: int = 1,
    *,
    timeout_seconds: float | None = None,
    priority: int = 0,
    strict: bool = False,
) -> Concurrency:
    """Hold slots of named limits while a block runs, in a flow's body or in a task.

    ```python
    with concurrency("warehouse"):
        copy(table)
    ```

    In coroutines write `async with`. The slots are shared by all runs of the same database. They
    come back when the block ends, however it ends, and soon after if its process dies. Each block
    holds its own, nested ones too. A task that waits keeps its worker: where many wait, declare
    `limits` on the task instead, which waits before it begins.

    Slots are lost when the process of the flow was stopped, or cut off from the database, for
    longer than fifteen seconds. That is a warning in the log of the run, and they are asked for
    again while the block goes on; unless it is `strict`.

    Args:
        names: The limit, or several, whose slots are taken all at once.
        occupy: Slots of each. Default: 1.
        timeout_seconds: How long to wait for them. Default: as long as it takes.
        priority: Higher goes first; equals go in the order in which they came.
        strict: End the block if its slots are lost: in a task at once, by an interruption that
            leaves the block as `SlotLostError`; in the body of a flow at the end of the block. An
            attempt that ends by that is LOST, and `crash_retries` try again.

    Raises:
        DefinitionError: What is wanted makes no sense; or, from the `with`, there is no run here.
        UnknownLimitError: From the `with`: nobody has set a limit of that name.
        InfeasibleResourcesError: From the `with`: the limit has fewer slots than that.
        SlotTimeoutError: From the `with`: the slots did not come in time. It is a `TimeoutError`.
        SlotLostError: From the end of a strict `with`: the slots were lost meanwhile.
        BackendError: From the `with`: this process cannot reach the one that drives the flow run.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted or not all(isinstance(name, str) and name.strip() for name in wanted):
        raise errors.DefinitionError(
            f"concurrency({names!r}) names no limit. Give the name of one, or a list of names."
        )
    if isinstance(occupy, bool) or not isinstance(occupy, int) or occupy < 1:
        raise errors.DefinitionError(
            f"concurrency({names!r}): occupy={occupy!r} is not a number of slots. Give 1 or more."
        )
    _check_timeout("concurrency", timeout_seconds)
    amounts = dict.fromkeys(wanted, occupy)
    return Concurrency(SlotsWanted(amounts, timeout_seconds, priority, strict))


@overload
def wait_for_input(
    form: type[T],
    *,
    timeout_seconds: float | None = None,
    default: T | None = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> T: ...


@overload
def wait_for_input(
    form: object,
    *,
    timeout_seconds: float | None = None,
    default: object = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> Any: ...


def wait_for_input(
    form: Any,
    *,
    timeout_seconds: float | None = None,
    default: object = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> Any:
    """Ask people for input in the body of a flow, and wait for it.

    ```python
    class Approval(BaseModel):
        approved: bool
        comment: str = ""

    if wait_for_input(Approval, assignees=["ada"]).approved:
        publish(report)
    ```

    Tasks go on meanwhile. Who answered, and when, is recorded. A resumed run finds the answers that
    were given, so let the body ask in the same order each time.

    Args:
        form: A pydantic model, or any other type that JSON can carry.
        timeout_seconds: How long to wait. Default: as long as it takes.
        default: What counts if nobody answers in time. Default: nothing.
        assignees: Who should answer. Default: anybody.
        title: What people read. Default: the name of the type.

    Raises:
        DefinitionError: There is no flow here, or the form or the default cannot be used.
        ParameterError: The answer does not fit the form.
        TimeoutError: Nobody answered in time, and there is no default.
    """
    context = _flow("wait_for_input")
    asked = _form("wait_for_input", form, timeout_seconds)
    question = asked.question(default, timeout_seconds, tuple(assignees), title)
    return asked.read(context.ask(question), question.title)


@overload
async def wait_for_input_async(
    form: type[T],
    *,
    timeout_seconds: float | None = None,
    default: T | None = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> T: ...


@overload
async def wait_for_input_async(
    form: object,
    *,
    timeout_seconds: float | None = None,
    default: object = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> Any: ...


async def wait_for_input_async(
    form: Any,
    *,
    timeout_seconds: float | None = None,
    default: object = None,
    assignees: Iterable[str] = (),
    title: str = "",
) -> Any:
    """Do as `wait_for_input` without blocking the event loop."""
    context = _flow("wait_for_input_async")
    asked = _form("wait_for_input_async", form, timeout_seconds)
    question = asked.question(default, timeout_seconds, tuple(assignees), title)
    return asked.read(await context.ask_async(question), question.title)


def pause_run(timeout_seconds: float | None = None) -> None:
    """Pause the flow run, in its body, until somebody lets it go on: `raflow unpause RUN`.

    No task starts meanwhile; those that run go on to their end. The process stays.

    Args:
        timeout_seconds: How long to wait. Default: as long as it takes.

    Raises:
        DefinitionError: There is no flow here.
        TimeoutError: Nobody let it go on in time.
    """
    context = _flow("pause_run")
    _check_timeout("pause_run", timeout_seconds)
    context.pause(timeout_seconds)


async def pause_run_async(timeout_seconds: float | None = None) -> None:
    """Do as `pause_run` without blocking the event loop."""
    context = _flow("pause_run_async")
    _check_timeout("pause_run_async", timeout_seconds)
    await context.pause_async(timeout_seconds)


def suspend_run() -> None:
    """Suspend the flow run, in its body: the process ends, until `raflow resume RUN`.

    What runs goes on to its end first. The resumed run goes through the body again; what was
    recorded is not computed again, and this call then returns at once.

    Raises:
        DefinitionError: There is no flow here.
        RunSuspended: Ends the body. It is no `Exception`; do not catch it.
    """
    _flow("suspend_run").suspend()


async def suspend_run_async() -> None:
    """Do as `suspend_run` without blocking the event loop."""
    await _flow("suspend_run_async").suspend_async()


def _flow(verb: str) -> FlowContext:
    context = flow_context()
    if context is None:
        where = "outside a flow" if active_task.get() is None else "inside a running task"
        raise errors.DefinitionError(
            f"{verb}() was called {where} at {user_line()}, but it is about a flow run. {_IN_FLOWS}"
        )
    return context


def _slot_gate() -> SlotGate:
    task = active_task.get()
    gate = flow_context() if task is None else task.slots
    if gate is not None:
        return gate
    if task is None:
        raise errors.DefinitionError(
            f"concurrency() was entered outside a flow at {user_line()}, where nobody counts "
            "slots. Enter it in the body of a flow, or in a task that runs as part of one; in a "
            "thread of theirs that was given their context: "
            "`Thread(target=contextvars.copy_context().run, args=(work,))`."
        )
    raise errors.DefinitionError(
        f"concurrency() was entered in task {task.task!r} at {user_line()}, whose process has no "
        "way to the limits. Declare them on the task: `@task(limits=[...])`."
    )


def _is_on_loop() -> bool:
    # Without the module there is no event loop, and importing it takes time.
    loops = sys.modules.get("asyncio.events")
    return loops is not None and loops._get_running_loop() is not None


def _form(verb: str, form: Any, timeout_seconds: float | None) -> Form:
    _check_timeout(verb, timeout_seconds)
    # Importing it imports pydantic, which would make `import raflow` slow.
    questions = importlib.import_module("raflow.define._questions")
    made: Form = questions.Form(form)
    return made


def _check_timeout(verb: str, seconds: object) -> None:
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and seconds > 0):  # type: ignore[operator]  # a number
        raise errors.DefinitionError(
            f"{verb}: timeout_seconds={seconds!r} is not a number of seconds above zero."
        )
