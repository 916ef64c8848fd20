"""From a call that the user wrote to the request that the flow's context takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from raflow import errors
from raflow._util import maker
from raflow.define._futures import AllowFailure, BaseFuture, MapFuture, TaskFuture
from raflow.define._lift import Lifter, may_hold
from raflow.define._requests import (
    NO_ARGUMENTS,
    CallRequest,
    Dependency,
    FlowContext,
    active_flow,
    active_task,
)
from raflow.define._where import user_line
from raflow.model import EdgeKind, TaskOptions

if TYPE_CHECKING:
    from raflow.define._definition import Definition

Condition: TypeAlias = bool | TaskFuture[Any] | MapFuture[Any] | None
"""What `run_if` of one call takes."""
Awaited: TypeAlias = Iterable[Any] | TaskFuture[Any] | MapFuture[Any] | None
"""What `wait_for` and `teardown_of` take: futures, in lists if there are several."""

PLAIN_OPTIONS: Final = TaskOptions()

_call_request: Final = maker(CallRequest)


def flow_context() -> FlowContext | None:
    """Return the flow body that this code is part of; None elsewhere, and inside a task."""
    return None if active_task.get() is not None else active_flow.get()


def needed_context(owner: str, method: str, instead: str) -> FlowContext:
    """Return the flow body that this code is part of.

    Args:
        owner: Whose method was called, for the error.
        method: Its name.
        instead: What to do where there is no flow.

    Raises:
        DefinitionError: There is none.
    """
    context = flow_context()
    if context is None:
        where = "outside a flow" if active_task.get() is None else "inside a running task"
        raise errors.DefinitionError(
            f"{owner}: `.{method}()` was called {where} at {user_line()}, where nothing can run "
            f"it. {instead}"
        )
    return context


def single_call(
    context: FlowContext,
    target: Definition,
    options: TaskOptions,
    arguments: Mapping[str, Any],
    *,
    wait_for: Awaited = None,
    run_if: Condition = None,
    teardown_of: Awaited = None,
) -> TaskFuture[Any]:
    """Make one call of a task or a subflow."""
    line = user_line(2)
    dependencies: tuple[Dependency, ...] = ()
    runnable = True
    conditions = wait_for is not None or run_if is not None or teardown_of is not None
    setups: tuple[int, ...] = ()
    if conditions or may_hold(arguments.values()):
        lifter = Lifter(context, target.owner)
        arguments = _lifted(lifter, target, arguments)
        runnable = add_conditions(lifter, target.owner, wait_for, run_if)
        setups = _add_setups(lifter, target.owner, teardown_of)
        dependencies = lifter.dependencies
    node, key = context.call(
        _call_request(
            (
                target.node_kind,
                target,
                options,
                arguments,
                dependencies,
                None,
                NO_ARGUMENTS,
                runnable,
                line,
                setups,
            )
        )
    )
    return TaskFuture(context, node, key, target.name, line)


def _lifted(lifter: Lifter, target: Definition, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: lifter.lift(inner, key) for key, inner in value.items()}
        if name == target.form.options
        else lifter.lift(value, name)
        for name, value in arguments.items()
    }


def add_conditions(lifter: Lifter, owner: str, wait_for: Awaited, run_if: Condition) -> bool:
    """Add what `wait_for` and `run_if` ask for; return whether the call may run at all.

    Raises:
        DefinitionError: One of them is something else than futures.
    """
    for future, may_fail in _futures_in(owner, "wait_for", wait_for):
        lifter.depend(future, EdgeKind.ORDER, allow_failure=may_fail)
    if isinstance(run_if, BaseFuture):
        lifter.depend(run_if, EdgeKind.CONDITION, "run_if")
        return True
    if callable(run_if):
        raise errors.DefinitionError(
            f"{owner}: run_if of one call is a truth or a future, not a function. Declare the "
            "function on the task: `@task(run_if=...)` or `.with_options(run_if=...)`."
        )
    return run_if is None or bool(run_if)


def _add_setups(lifter: Lifter, owner: str, teardown_of: Awaited) -> tuple[int, ...]:
    """Let a teardown follow the calls that set up; return their nodes."""
    setups = [future for future, _ in _futures_in(owner, "teardown_of", teardown_of)]
    for future in setups:
        lifter.depend(future, EdgeKind.ORDER)
    return tuple(dict.fromkeys(future._node for future in setups))


def _futures_in(
    owner: str, option: str, given: Any, *, allow_failure: bool = False
) -> Iterator[tuple[BaseFuture, bool]]:
    """Yield the futures that were given, and whether each may fail."""
    if given is None:
        return
    if isinstance(given, BaseFuture):
        yield given, allow_failure
    elif isinstance(given, AllowFailure):
        yield from _futures_in(owner, option, given.value, allow_failure=True)
    elif isinstance(given, list | tuple | set | frozenset):
        for item in given:
            yield from _futures_in(owner, option, item, allow_failure=allow_failure)
    else:
        raise errors.DefinitionError(
            f"{owner}: {option} takes futures, but it got {given!r}. Give the future of a task "
            "call, or a list of them."
        )
