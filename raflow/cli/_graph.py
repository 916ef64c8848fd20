"""`raflow graph`, and the forms that graphs are printed in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from raflow.cli._options import Json, Params, ParamsFile, Target

if TYPE_CHECKING:
    from raflow.model import FlowGraph


class GraphFormat(StrEnum):
    """How a graph is printed."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


Format = Annotated[GraphFormat, typer.Option("--format", "-f", help="How to print the graph.")]


def graph(
    target: Target,
    param: Params = None,
    params_file: ParamsFile = None,
    format_: Format = GraphFormat.TEXT,
    json_: Json = False,
) -> None:
    """Show the graph of a flow without running its tasks.

    The body of the flow runs, with calls of tasks that only draw. Where it needs the value of a
    task, the graph ends and says so.
    """
    from raflow import define
    from raflow.cli import _params

    found = define.find_flow(target)
    parameters = _params.read_parameters(found.flow, param or (), params_file)
    print_graph(found.flow.compile(**parameters), GraphFormat.JSON if json_ else format_)


def print_graph(
    graph: FlowGraph, format_: GraphFormat, states: Mapping[int, str] | None = None
) -> None:
    """Print a graph.

    Args:
        graph: The graph.
        format_: The form.
        states: State type by node id; colours the nodes. Default: no colours.
    """
    from raflow.cli import _console, _graph_text

    match format_:
        case GraphFormat.MERMAID:
            print(graph.to_mermaid(states).rstrip("\n"))
        case GraphFormat.DOT:
            print(graph.to_dot(states).rstrip("\n"))
        case GraphFormat.JSON:
            print(graph.to_json())
        case GraphFormat.TEXT:
            out = _console.out()
            if graph.nodes:
                out.print(_graph_text.render(graph, states))
            else:
                out.print(f"Flow {graph.flow!r} calls no task.", markup=False)
    if graph.stopped_at is not None:
        _console.err().print(graph.stopped_at.message, style="yellow", markup=False)
