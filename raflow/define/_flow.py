"""`@flow` and what it makes of a function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
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
from raflow.define._by_name import run_name
from raflow.define._calls import (
    PLAIN_OPTIONS,
    Awaited,
    Condition,
    flow_context,
    needed_context,
    single_call,
)
from raflow.define._code import source_of
from raflow.define._definition import Definition
from raflow.define._futures import TaskFuture
from raflow.define._keywords import FlowKeywords, Hook
from raflow.define._loop import run_to_end
from raflow.define._options import FLOW_HOOKS, FlowOptions, flow_options, hooks_for
from raflow.define._requests import active_task
from raflow.define._runner import RunOutcome, find_runner, find_server
from raflow.define._task import Task
from raflow.define._trace import trace
from raflow.define._where import user_frame, user_line
from raflow.model import FlowGraph, NodeKind, State

if TYPE_CHECKING:
    from pathlib import Path

    from raflow.define._parameters import Parameters
    from raflow.model import Deployment, ScheduleSpec
    from raflow.model.schedule import Rule, Schedule

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Flow(Definition, Generic[P, R]):
    """A function that composes tasks; a call of it is a flow run.

    Make one with `@flow`. A call validates the parameters, runs the flow and returns its value;
    inside another flow a call is a subflow and returns a `TaskFuture`.
    """

    kind: ClassVar[str] = "flow"
    node_kind: ClassVar[NodeKind] = NodeKind.SUBFLOW

    options: FlowOptions
    """How its runs behave."""

    _checker: Parameters | None

    def __init__(self, fn: Callable[..., Any], **options: Unpack[FlowKeywords]) -> None:
        """Declare a function as a flow; `@flow` is the usual way.

        Raises:
            DefinitionError: The function or an option cannot be used.
        """
        super().__init__(fn, options)
        self.options = flow_options(self.owner, self._given)
        naming = options.get("flow_run_name")
        self.run_name = run_name(self.owner, "flow_run_name", naming, self.signature)
        """Makes the name of a run from its parameters by name; None: raflow makes one up."""
        self._around = _local_names(fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow and return its value; inside another flow, return a `TaskFuture` of it.

        Raises:
            ParameterError: The parameters do not fit; nothing has run.
            Exception: What the flow raised, or a `FlowRunError` that says why there is no value.
        """
        context = flow_context()
        if context is not None:
            arguments = self._parameters.bind(args, kwargs)
            return single_call(context, self, PLAIN_OPTIONS, arguments)
        if active_task.get() is not None:
            raise errors.DefinitionError(
                f"Flow {self.name!r} was called inside a running task at {user_line()}, where no "
                "flow can run. Call it from a flow, as a subflow, and pass its future to the task."
            )
        parameters = self.validate(*args, **kwargs)
        if self.is_async:
            return self._run_async(parameters)  # type: ignore[return-value]  # a coroutine, as R is
        return find_runner().run_flow(self, parameters).unwrap()  # type: ignore[no-any-return]  # a user's value

    def run(self, *args: Any, **kwargs: Any) -> RunOutcome:
        """Run the flow and return how that went, instead of raising what it raised.

        An async flow is run to its end in an event loop of its own.

        Raises:
            ParameterError: The parameters do not fit; nothing has run.
        """
        parameters = self.validate(*args, **kwargs)
        if self.is_async:
            return run_to_end(find_runner().run_flow_async(self, parameters))
        return find_runner().run_flow(self, parameters)

    def resume(
        self, flow_run_id: str, *, allow_new_code: bool = False, force: bool = False
    ) -> RunOutcome:
        """Go on with a run of the flow whose process has died, or that was suspended or failed.

        The flow runs again from its first line; every call whose value is on record is answered
        with that instead of being executed. What was lost is computed again as far as it is needed.

        Args:
            flow_run_id: The run: its id, its name, or `latest`.
            allow_new_code: Whether the code may have changed since the run began. Default: no.
            force: Whether to take the run from a process that still drives it. Default: no.

        Raises:
            NotFoundError: No such flow run was recorded.
            ResumeError: The run completed, or its code has changed.
            RunIsAliveError: Another process drives it.
        """
        return find_runner().resume_flow(
            self, flow_run_id, allow_new_code=allow_new_code, force=force
        )

    def deploy(
        self,
        name: str = "",
        *,
        pool: str = "default",
        parameters: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        priority: int = 0,
        concurrency: int | None = None,
        schedules: Sequence[ScheduleSpec | Schedule | Rule] = (),
        root: Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        note: str = "",
    ) -> Deployment:
        """Keep the flow with its code under a name; a new version if anything is different.

        Args:
            name: Of the deployment. Default: the flow's own, in small letters.
            pool: The work pool whose workers run it.
            parameters: Those that runs get unless they are given others; as JSON can hold them.
            tags: Tags of its runs.
            priority: Runs with a higher one begin first.
            concurrency: How many of its runs may go on at once. Default: any number.
            schedules: When it runs by itself: rules such as `Cron("0 2 * * *")`, or `ScheduleSpec`s
                with names, parameters and policies of their own.
            root: The directory that is packed. Default: the first above the flow's file with a
                `pyproject.toml` or `.git` in it, else the file's own.
            include: Paths of files, from `root`, that are packed in any case.
            exclude: Patterns of what is left out, as in a `.gitignore` of `root`.
            note: What is new, for people.

        Raises:
            DefinitionError: The flow is in no file, or the name is none for a deployment.
            ParameterError: The flow does not take the parameters, or they are not JSON; or a
                schedule leaves out one that it needs.
            ScheduleError: Two schedules have the same name, or one is no name.
            BundleError: The directory cannot be packed, or leaves the flow out.
            StoreError: The database cannot be opened or written.
        """
        # Only who deploys needs it.
        from raflow.model import DeploymentSpec, schedule_specs  # noqa: PLC0415

        wanted = schedule_specs(schedules)
        spec = DeploymentSpec(
            flow="",
            entrypoint="",
            pool=pool,
            parameters=parameters or {},
            tags=tuple(tags),
            priority=priority,
            concurrency=concurrency,
        )
        return find_runner().deploy_flow(
            self,
            spec,
            name=name,
            schedules=wanted,
            root=root,
            include=include,
            exclude=exclude,
            note=note,
        )

    def serve(
        self,
        name: str = "",
        *,
        pool: str = "",
        parameters: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        priority: int = 0,
        concurrency: int | None = None,
        schedules: Sequence[ScheduleSpec | Schedule | Rule] = (),
        root: Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        note: str = "",
        runners: int = 0,
        drain_seconds: float = 60.0,
    ) -> None:
        """Deploy the flow, and take the runs of that in this process until Ctrl-C or SIGTERM.

        Nothing else has to run. The code is that of now: whoever edits it starts this again.

        ```python
        if __name__ == "__main__":
            etl.serve("nightly", schedules=[Cron("30 2 * * *")])
        ```

        Args:
            name: As for `deploy`, and so are the others.
            pool: The pool whose runs this process takes. Default: one that is named like the
                deployment, and so nobody else's.
            parameters: See `deploy`.
            tags: See `deploy`.
            priority: See `deploy`.
            concurrency: See `deploy`.
            schedules: See `deploy`; this process starts their runs.
            root: See `deploy`.
            include: See `deploy`.
            exclude: See `deploy`.
            note: See `deploy`.
            runners: How many runs at the same time. Default: one for each CPU.
            drain_seconds: See `raflow.serve`.

        Raises:
            DefinitionError: The flow cannot be deployed, or a worker loads this file: put the call
                under `if __name__ == "__main__":`.
            ParameterError: The flow does not take the parameters.
            StoreError: The database cannot be opened or written.
        """
        deployed = self.deploy(
            name,
            pool=pool or name or self.name.lower(),
            parameters=parameters,
            tags=tags,
            priority=priority,
            concurrency=concurrency,
            schedules=schedules,
            root=root,
            include=include,
            exclude=exclude,
            note=note,
        )
        find_server().serve([deployed], runners=runners, drain_seconds=drain_seconds)

    def rerun(
        self,
        flow_run_id: str,
        *,
        from_: str | Sequence[str] = (),
        failed: bool = False,
        parameters: Mapping[str, Any] | None = None,
        allow_new_code: bool = False,
    ) -> RunOutcome:
        """Run the flow anew with what an earlier run has left; one of the choices must be made.

        It is a flow run of its own, with the parameters of the earlier one. Task runs that need not
        run again are Cached, with the values that they had there.

        Args:
            flow_run_id: The earlier run: its id, its name, or `latest`. It must be over.
            from_: What runs again, with all that depends on it: names of tasks, calls (`load-0`)
                or task runs; one, or several. What did not complete runs as well. Default: nothing.
            failed: Run what did not complete. Default: no.
            parameters: Those that are to be others than before, by name; calls that get other
                arguments by that, and all that depends on them, run again. Default: none.
            allow_new_code: Whether the code may have changed since. Calls of other code than then,
                and all that depends on them, run again. Default: no.

        Raises:
            NotFoundError: No such flow run was recorded, or it has no call of such a name.
            ResumeError: The run is not over, or its code has changed; or no choice was made.
            ParameterError: The parameters do not fit.
        """
        names = [from_] if isinstance(from_, str) else list(from_)
        return find_runner().rerun_flow(
            self,
            flow_run_id,
            from_=names,
            failed=failed,
            parameters=parameters or {},
            allow_new_code=allow_new_code,
        )

    @overload
    def submit(
        self: Flow[..., Coroutine[Any, Any, T]],
        *args: Any,
        wait_for: Awaited = None,
        run_if: Condition = None,
        **kwargs: Any,
    ) -> TaskFuture[T]: ...

    @overload
    def submit(
        self, *args: Any, wait_for: Awaited = None, run_if: Condition = None, **kwargs: Any
    ) -> TaskFuture[R]: ...

    def submit(
        self, *args: Any, wait_for: Awaited = None, run_if: Condition = None, **kwargs: Any
    ) -> TaskFuture[Any]:
        """Call the flow as a subflow, with conditions that are not parameters; see `Task.submit`.

        Raises:
            DefinitionError: There is no flow here that could run it.
        """
        context = needed_context(
            self.owner, "submit", f"Call `{self.name}(...)` itself to run the flow."
        )
        arguments = self._parameters.bind(args, kwargs)
        return single_call(
            context,
            self,
            PLAIN_OPTIONS,
            arguments,
            wait_for=wait_for,
            run_if=run_if,
        )

    def validate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters by name, coerced to their types, with defaults.

        Raises:
            ParameterError: They do not fit; names the flow, the parameter and its value.
        """
        return self.validate_arguments(self._parameters.bind(args, kwargs))

    def validate_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Do as `validate` for parameters by name; what `*rest` takes is a tuple in one name.

        Raises:
            ParameterError: They do not fit; names the flow, the parameter and its value.
        """
        if self.options.validate_parameters:
            return self._parameters.validate(arguments)
        return self._parameters.with_defaults(arguments)

    def parse_parameters(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Turn texts, such as those of a command line, into parameters of the right types.

        A text is read as JSON if that fits the parameter's type, and as itself otherwise.

        Raises:
            ParameterError: A name is unknown, or a text does not fit its parameter.
        """
        return self._parameters.parse(texts)

    def parameter_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the parameters."""
        return self._parameters.schema()

    def compile(self, *args: P.args, **kwargs: P.kwargs) -> FlowGraph:
        """Draw the graph of a run with these parameters, without running a task.

        The body runs with calls that only draw. Where it needs a task's value the graph ends, and
        its `stopped_at` says where that is.

        Raises:
            ParameterError: The parameters do not fit.
            CycleError: The flow calls itself without end.
            Exception: Whatever the body raises.
        """
        return trace(self, self.validate(*args, **kwargs))

    def tasks(self) -> tuple[Task[..., Any] | Flow[..., Any], ...]:
        """Return the tasks and flows that the code refers to, and those that they refer to.

        What the body imports or makes while it runs is not among them.
        """
        found = _references.references(self)
        return tuple(other for other in found if isinstance(other, Task | Flow))

    def fingerprint(self) -> str:
        """Return a hash of the code of the flow and of the tasks and flows that it refers to.

        Equal code has an equal fingerprint in every process; comments and formatting do not count.
        """
        return _references.fingerprint(self)

    @property
    def source(self) -> str:
        """Source text of the function; empty if it cannot be read."""
        return source_of(self.fn)

    def with_options(self, **options: Unpack[FlowKeywords]) -> Self:
        """Return a copy of the flow with some options changed.

        Args:
            **options: As in `@flow`; what is not given stays as it is, None means the default.
        """
        changed = type(self)(self.fn, **{**self._given, **options})
        changed._around = self._around
        return changed

    def on_running(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(flow, flow_run, state)` when a run starts."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(flow, flow_run, state)` when a run has completed."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(flow, flow_run, state)` when a run has failed."""
        return self._add_hook("on_failure", hook)

    def on_cancellation(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(flow, flow_run, state)` when a run was cancelled."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: Hook) -> Hook:
        """Decorate a function to be called `(flow, flow_run, state)` when a run has crashed."""
        return self._add_hook("on_crashed", hook)

    def hooks_for(self, state: State) -> tuple[Hook, ...]:
        """Return the functions to call when a run of the flow enters a state."""
        return hooks_for(state, self._given, FLOW_HOOKS)

    async def _run_async(self, parameters: Mapping[str, Any]) -> Any:
        outcome = await find_runner().run_flow_async(self, parameters)
        return outcome.unwrap()

    @property
    def _parameters(self) -> Parameters:
        if self._checker is None:
            # Importing it imports pydantic, which would make `import raflow` slow.
            module = importlib.import_module("raflow.define._parameters")
            self._checker = module.Parameters(self, self._around)
        return self._checker


class _FlowDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(**options: Unpack[FlowKeywords]) -> _FlowDecorator: ...


def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as a flow.

    ```python
    @flow
    def etl(day: date, regions: list[str]) -> int:
        return load(extract.map(regions, day=unmapped(day)))

    etl(date(2026, 1, 1), ["eu", "us"])
    ```

    Args:
        fn: The function; async functions are fine.
        **options: See `FlowKeywords`.

    Returns:
        A `Flow`, or, if only options are given, a decorator.

    Raises:
        DefinitionError: The function or an option cannot be used.
    """
    if fn is None:
        return lambda function: Flow(function, **options)
    return Flow(fn, **options)


def _local_names(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the local names around a flow's declaration that its annotations use.

    A flow declared inside a function may have types that only that function knows.
    """
    frame = user_frame()
    if frame is None or frame.f_locals is frame.f_globals:
        return {}
    texts = [a for a in getattr(fn, "__annotations__", {}).values() if isinstance(a, str)]
    names = {name for text in texts for name in _names_in(text)}
    return {name: frame.f_locals[name] for name in names if name in frame.f_locals}


def _names_in(annotation: str) -> tuple[str, ...]:
    try:
        return compile(annotation, "<annotation>", "eval").co_names
    except SyntaxError:
        return ()
