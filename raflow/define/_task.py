"""`@task` and what it makes of a function."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from raflow import errors
from raflow.define import _references
from raflow.define._by_name import by_name, run_name
from raflow.define._calls import (
    Awaited,
    Condition,
    flow_context,
    needed_context,
    single_call,
)
from raflow.define._definition import BoundDefinition, Definition
from raflow.define._futures import MapFuture, TaskFuture, unmapped
from raflow.define._keywords import Hook, TaskKeywords
from raflow.define._mapping import mapped_call
from raflow.define._options import (
    TASK_HOOKS,
    as_teardown,
    cache_policy,
    hooks_for,
    task_options,
)
from raflow.model import NodeKind, State, TaskOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Task(Definition, Generic[P, R]):
    """A function whose calls inside a flow run in parallel, are retried and are recorded.

    Make one with `@task`. Inside a flow a call returns a `TaskFuture` at once and runs as soon as
    its inputs are there; anywhere else a call is a call of the plain function.
    """

    kind: ClassVar[str] = "task"
    node_kind: ClassVar[NodeKind] = NodeKind.TASK

    options: TaskOptions
    """How its calls run."""

    def __init__(self, fn: Callable[..., Any], **options: Unpack[TaskKeywords]) -> None:
        """Declare a function as a task; `@task` is the usual way.

        Raises:
            DefinitionError: The function or an option cannot be used.
        """
        self._descriptor = fn if isinstance(fn, staticmethod | classmethod) else None
        if isinstance(fn, staticmethod | classmethod):
            fn = fn.__func__
        super().__init__(fn, options)
        self.options = task_options(self.owner, self._given)
        self._check_concurrency()
        condition = options.get("run_if")
        self.run_if = condition and by_name(self.owner, "run_if", condition, self.signature)
        """Decides whether a run happens, given the arguments of the call; None: it always does."""
        naming = options.get("task_run_name")
        self.run_name = run_name(self.owner, "task_run_name", naming, self.signature)
        """Makes the name of a run from its arguments by name; None: it gets the key of its call."""
        self.retry_condition_fn = options.get("retry_condition_fn")
        """Asked `(task_name, exception)` after a failure; false means that no retry can help."""
        self.cache_policy = cache_policy(self._given)
        """Which calls are the same; see `raflow.define.CachePolicy.key`."""
        self.cache_policy.check(self.owner, self.signature)
        self._teardown_options: TaskOptions | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Call the task: inside a flow this returns a `TaskFuture`, elsewhere the value itself."""
        context = flow_context()
        if context is None:
            return self.fn(*args, **kwargs)  # type: ignore[no-any-return]  # the plain function
        return single_call(context, self, self.options, self.bind(args, kwargs))

    def submit(
        self,
        *args: Any,
        wait_for: Awaited = None,
        run_if: Condition = None,
        teardown_of: Awaited = None,
        **kwargs: Any,
    ) -> TaskFuture[R]:
        """Call the task inside a flow, with conditions that are not arguments.

        Args:
            *args: As in a call.
            wait_for: Futures that must be over first, although nothing is taken from them.
            run_if: Whether the call is to run at all: a truth, or a future of one. If it is false
                the run is SKIPPED.
            teardown_of: Futures of calls that set something up which this call removes: it runs
                once these and all of `wait_for` are over, whatever came of them, unless the set-up
                itself did not complete. It runs after a cancellation, too. Its failure is not the
                flow's, unless the task is declared with `teardown_counts=True`.
            **kwargs: As in a call.

        Raises:
            DefinitionError: There is no flow here that could run it.
        """
        context = needed_context(
            self.owner, "submit", f"Call `{self.name}(...)` itself to run it as a plain function."
        )
        arguments = self.bind(args, kwargs)
        return single_call(
            context,
            self,
            self.options if teardown_of is None else self._as_teardown(),
            arguments,
            wait_for=wait_for,
            run_if=run_if,
            teardown_of=teardown_of,
        )

    def map(
        self, *args: Any, wait_for: Awaited = None, run_if: Condition = None, **kwargs: Any
    ) -> MapFuture[R]:
        """Call the task once per item of its arguments, which are zipped.

        Lists, tuples, ranges, sets, arrays and series have items, and so have a `MapFuture` and the
        future of a list, whose number of items may be known only later. Texts, bytes, dicts, models
        and tables are given to every item whole, as is what stands in `unmapped(...)`.

        Items are read when there is room for them, so do not change one after the call; adding to a
        list, or taking from it, is fine. Generators and other iterators are run as far as there is
        room, on other threads, while the flow goes on. Their first item is read at the call: if it
        holds a future they are read to the end there, and if not, none of the others may.

        Args:
            *args: As in a call, but with items.
            wait_for: Futures that must be over before any item starts.
            run_if: Whether the items are to run at all: a truth, or a future of one.
            **kwargs: As in a call, but with items.

        Raises:
            MappingLengthMismatchError: The arguments have different numbers of items. If that comes
                out only when an iterator ends, the run of one more item fails with it instead.
            DefinitionError: No argument has items, or there is no flow here.
        """
        context = needed_context(
            self.owner,
            "map",
            f"Use a list comprehension there: `[{self.name}(x) for x in items]`.",
        )
        arguments = self.bind(args, kwargs)
        return mapped_call(context, self, self.options, arguments, wait_for=wait_for, run_if=run_if)

    def with_options(self, **options: Unpack[TaskKeywords]) -> Self:
        """Return a copy of the task with some options changed.

        Args:
            **options: As in `@task`; what is not given stays as it is, None means the default.
        """
        return type(self)(self._descriptor or self.fn, **{**self._given, **options})

    def on_running(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` when an attempt starts."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` when a run has completed."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` when a run has failed.

        Also when it has crashed, unless there is a hook `on_crashed`.
        """
        return self._add_hook("on_failure", hook)

    def on_crashed(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` when a run has crashed."""
        return self._add_hook("on_crashed", hook)

    def on_cancellation(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` when a run was cancelled."""
        return self._add_hook("on_cancellation", hook)

    def on_rollback(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(task, task_run, state)` if the flow run fails.

        It is called for each run of the task that has completed, the last one first.
        """
        return self._add_hook("on_rollback", hook)

    def hooks_for(self, state: State) -> tuple[Hook, ...]:
        """Return the functions to call when a run of the task enters a state."""
        return hooks_for(state, self._given, TASK_HOOKS)

    @property
    def rollback_hooks(self) -> tuple[Hook, ...]:
        """The functions to call for each completed run if the flow run fails."""
        return tuple(self._given.get("on_rollback") or ())

    def code_fingerprint(self) -> str:
        """Return a hash of the code of the task and of the functions that it refers to.

        Options do not count, nor do comments and formatting. Equal code has an equal fingerprint in
        every process.
        """
        return _references.code_fingerprint(self.fn)

    def _as_teardown(self) -> TaskOptions:
        # The same object each time, as the options of other calls are.
        if self._teardown_options is None:
            self._teardown_options = as_teardown(self.options)
        return self._teardown_options

    def _check_concurrency(self) -> None:
        width = self.options.concurrency_per_worker
        if width > 1 and not self.is_async:
            raise errors.DefinitionError(
                f"{self.owner}: concurrency_per_worker={width} is for async functions, whose calls "
                "overlap while they wait. Declare it with `async def`, or leave the option out: "
                "calls of other functions overlap in several workers."
            )

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(
        self: Task[Concatenate[Any, Q], S], instance: object, owner: type | None = None
    ) -> BoundTask[Q, S]: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        if isinstance(self._descriptor, staticmethod):
            return self
        if isinstance(self._descriptor, classmethod):
            return BoundTask(self, owner or type(instance))
        return self if instance is None else BoundTask(self, instance)


class BoundTask(BoundDefinition, Generic[Q, S]):
    """A task that is a method, together with its object, which travels like any argument."""

    def __init__(self, task: Task[..., S], instance: object) -> None:
        """Bind a task to the object that its first parameter gets."""
        self.task = self.definition = task
        self._instance = instance

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> TaskFuture[S]:
        """Call the task; see `Task`."""
        return self.task(self._instance, *args, **kwargs)

    def submit(
        self,
        *args: Any,
        wait_for: Awaited = None,
        run_if: Condition = None,
        teardown_of: Awaited = None,
        **kwargs: Any,
    ) -> TaskFuture[S]:
        """Call the task inside a flow; see `Task.submit`."""
        return self.task.submit(
            self._instance,
            *args,
            wait_for=wait_for,
            run_if=run_if,
            teardown_of=teardown_of,
            **kwargs,
        )

    def map(
        self, *args: Any, wait_for: Awaited = None, run_if: Condition = None, **kwargs: Any
    ) -> MapFuture[S]:
        """Call the task once per item; see `Task.map`."""
        instance = unmapped(self._instance)
        return self.task.map(instance, *args, wait_for=wait_for, run_if=run_if, **kwargs)

    def with_options(self, **options: Unpack[TaskKeywords]) -> BoundTask[Q, S]:
        """Return a copy with some options changed; see `Task.with_options`."""
        return BoundTask(self.task.with_options(**options), self._instance)

    @property
    def fn(self) -> Callable[..., Any]:
        """The plain method."""
        return types.MethodType(self.task.fn, self._instance)


class _TaskDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...

    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(**options: Unpack[TaskKeywords]) -> _TaskDecorator: ...


def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as a task.

    ```python
    @task
    def extract(region: str) -> list[int]: ...

    @task(retries=3, retry_delay_seconds=[1, 10, 60], memory="2GiB")
    def load(rows: list[int]) -> int: ...
    ```

    Args:
        fn: The function; async functions and methods are fine.
        **options: See `TaskKeywords`.

    Returns:
        A `Task`, or, if only options are given, a decorator.

    Raises:
        DefinitionError: The function or an option cannot be used.
    """
    if fn is None:
        return lambda function: Task(function, **options)
    return Task(fn, **options)
