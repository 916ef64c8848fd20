"""Drawing the graph of a flow without running its tasks."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from raflow import errors
from raflow.define._loop import run_to_end
from raflow.define._requests import (
    CallKeys,
    CallRequest,
    Columns,
    Question,
    Registered,
    SlotsWanted,
    active_flow,
    active_task,
)
from raflow.define._where import user_line
from raflow.model import (
    Edge,
    EdgeKind,
    FlowGraph,
    GraphNode,
    NodeKind,
    StopPoint,
    TaskRunKey,
)

if TYPE_CHECKING:
    from raflow.define._flow import Flow

_DEEPEST: Final = 50
"""How many flows may call each other before that counts as endless."""


class Traced(NamedTuple):
    """A flow that is being traced."""

    flow: Flow[..., Any]
    parameters: Mapping[str, Any]


def trace(
    flow: Flow[..., Any], parameters: Mapping[str, Any], callers: tuple[Traced, ...] = ()
) -> FlowGraph:
    """Run the body of a flow with calls that only draw.

    Args:
        flow: The flow.
        parameters: Validated ones, by name.
        callers: The flows that led here, outermost first.

    Raises:
        CycleError: The flow calls itself without end.
        Exception: Whatever the body raises.
    """
    chain = (*callers, Traced(flow, parameters))
    _check_ends(chain)
    context = _TracingContext(chain)
    try:
        _run_body(flow, parameters, context)
    except BaseException:
        # The body may have wrapped what stopped it (in an exception group, say).
        if context.stopped_at is None:
            raise
    return context.graph()


class _TracingContext:
    """A `FlowContext` that draws calls and has no values."""

    def __init__(self, chain: tuple[Traced, ...]) -> None:
        self.stopped_at: StopPoint | None = None
        self._chain = chain
        self._keys = CallKeys()
        self._nodes: list[GraphNode] = []
        self._edges: list[Edge] = []
        self._subgraphs: dict[int, FlowGraph] = {}

    def graph(self) -> FlowGraph:
        """Return what has been drawn."""
        return FlowGraph.of(
            self._chain[-1].flow.name,
            self._nodes,
            self._edges,
            subgraphs=self._subgraphs,
            stopped_at=self.stopped_at,
        )

    def call(self, request: CallRequest) -> Registered:
        if self.stopped_at is not None:
            raise errors.ValueNeeded(self.stopped_at.message)
        node, key = len(self._nodes), self._keys.next(request.target.name)
        subflow = request.kind is NodeKind.SUBFLOW
        self._nodes.append(
            GraphNode(
                id=node,
                key=key,
                kind=request.kind,
                name=request.target.name,
                line=request.line,
                length=len(request.items) if isinstance(request.items, Columns) else None,
                trigger_rule=request.options.trigger_rule,
                resources=None if subflow else request.options.resources,
            )
        )
        self._edges.extend(dependency.edge(node) for dependency in request.dependencies)
        if subflow and request.runnable and not _needs_values(request):
            self._trace_subflow(node, cast("Flow[..., Any]", request.target), request.arguments)
        return Registered(node, key)

    def drop(self, node: int) -> None:
        """A traced call has no value to let go."""

    def length(self, node: int) -> NoReturn:
        self._stop(node)

    def state(self, run: TaskRunKey) -> NoReturn:
        self._stop(run.node)

    def result(self, node: int, *_: Any, **__: Any) -> NoReturn:
        self._stop(node)

    async def result_async(self, node: int, *_: Any) -> NoReturn:
        self._stop(node)

    def wait(self, node: int, *_: Any, **__: Any) -> NoReturn:
        self._stop(node)

    def cancel(self, *_: Any) -> None:
        """A traced call does not run."""

    def acquire(self, _: SlotsWanted) -> str:
        return ""

    async def acquire_async(self, _: SlotsWanted) -> str:
        return ""

    def release(self, holder: str) -> None:
        """Tracing holds nothing."""

    def ask(self, question: Question) -> NoReturn:
        self._stop_at_question(question)

    async def ask_async(self, question: Question) -> NoReturn:
        self._stop_at_question(question)

    def occasion(self, _what: str) -> NoReturn:
        self._stop_where("orders a run of a deployment")

    def pause(self, *_: Any) -> None:
        """Tracing does not wait."""

    async def pause_async(self, *_: Any) -> None:
        """Tracing does not wait."""

    def suspend(self) -> None:
        """Tracing goes on, as a resumed run does."""

    async def suspend_async(self) -> None:
        """Tracing goes on, as a resumed run does."""

    def _trace_subflow(self, node: int, flow: Flow[..., Any], arguments: Mapping[str, Any]) -> None:
        parameters = flow.validate_arguments(arguments)
        self._subgraphs[node] = trace(flow, parameters, self._chain)

    def _stop(self, node: int) -> NoReturn:
        key, line = self._nodes[node].key, user_line()
        message = (
            f"The graph is known up to {line}, where the body needs the value of {key!r}, which "
            "only a run can give. To draw what follows as well, pass the future on instead of "
            "waiting for it, map over it, or state the branch with `run_if=`."
        )
        self._end(StopPoint(key=key, line=line, message=message))

    def _stop_at_question(self, question: Question) -> NoReturn:
        self._stop_where(f"asks people for {question.title!r}")

    def _stop_where(self, does: str) -> NoReturn:
        line = user_line()
        message = (
            f"The graph is known up to {line}, where the body {does}, which only a run can do."
        )
        self._end(StopPoint(key="", line=line, message=message))

    def _end(self, where: StopPoint) -> NoReturn:
        self.stopped_at = self.stopped_at or where
        raise errors.ValueNeeded(where.message, key=where.key, line=where.line)


def _needs_values(request: CallRequest) -> bool:
    return any(d.kind in {EdgeKind.DATA, EdgeKind.ITEM} for d in request.dependencies)


def _check_ends(chain: tuple[Traced, ...]) -> None:
    *callers, last = chain
    again = [i for i, caller in enumerate(callers) if caller.flow.fn is last.flow.fn]
    endless = any(_same(callers[i].parameters, last.parameters) for i in again)
    if endless or len(chain) > _DEEPEST:
        circle = chain[again[-1] :] if again else chain
        raise errors.CycleError(
            f"{last.flow.owner} calls itself without end: "
            f"{' -> '.join(traced.flow.name for traced in circle)}. Give it a condition that ends "
            "the calls."
        )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    try:
        return bool(one == other)
    except Exception:  # user values may refuse to be compared
        return False


def _run_body(
    flow: Flow[..., Any], parameters: Mapping[str, Any], context: _TracingContext
) -> None:
    args, kwargs = flow.form.apply(parameters)

    def run() -> None:
        active_flow.set(context)
        active_task.set(None)
        returned = flow.fn(*args, **kwargs)
        if flow.is_async:
            run_to_end(returned)

    contextvars.copy_context().run(run)
