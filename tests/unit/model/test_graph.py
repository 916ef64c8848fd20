"""The graph of a flow: order, cycles, and its forms outside Python."""

from __future__ import annotations

import json
import re
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from raflow import errors
from raflow.model import (
    PALETTE,
    Edge,
    EdgeKind,
    FlowGraph,
    GraphNode,
    NodeKind,
    Resources,
    StateType,
    StopPoint,
    TriggerRule,
    graph_from_dict,
)


def node(n: int, name: str = "a", kind: NodeKind = NodeKind.TASK, **more: Any) -> GraphNode:
    return GraphNode(id=n, key=f"{name}-{n}", kind=kind, name=name, **more)


def chain(*names: str) -> FlowGraph:
    nodes = [node(n, name) for n, name in enumerate(names)]
    return FlowGraph.of("f", nodes, [Edge(source=n, target=n + 1) for n in range(len(names) - 1)])


DIAMOND = FlowGraph.of(
    "etl",
    [
        node(0, "extract", NodeKind.MAP, length=12),
        node(1, "clean", label="clean eu"),
        node(2, "check"),
        node(3, "load", NodeKind.SUBFLOW),
        node(4, "count", NodeKind.MAP),
    ],
    [
        Edge(source=0, target=1, parameter="rows"),
        Edge(source=0, target=2, parameter="rows", source_item=1),
        Edge(source=0, target=2, parameter="rows", source_item=2),
        Edge(source=1, target=3, parameter="table"),
        Edge(source=2, target=3, kind=EdgeKind.CONDITION, parameter="run_if"),
        Edge(source=2, target=4, kind=EdgeKind.ORDER),
    ],
    subgraphs={3: chain("inner", "last")},
    stopped_at=StopPoint(key="check-2", line="etl.py:7", message="why"),
)


def test_layers_depend_only_on_layers_before() -> None:
    assert [[n.id for n in layer] for layer in DIAMOND.layers()] == [[0], [1, 2], [3, 4]]
    assert chain().layers() == []


def test_nodes_and_what_they_wait_for() -> None:
    assert DIAMOND.node(3).name == "load"
    assert [edge.source for edge in DIAMOND.upstream(3)] == [1, 2]
    with pytest.raises(errors.NotFoundError, match="graph of 'etl' has no node with id 9"):
        DIAMOND.node(9)


def test_a_cycle_is_refused_with_its_nodes() -> None:
    edges = [Edge(source=0, target=1), Edge(source=1, target=2), Edge(source=2, target=1)]
    with pytest.raises(errors.CycleError, match="cycle through b-1, c-2: each waits"):
        FlowGraph.of("f", [node(0), node(1, "b"), node(2, "c")], edges)


def test_an_edge_to_nowhere_is_refused() -> None:
    with pytest.raises(errors.DefinitionError, match="edge 0 -> 5 of 'f' names a node that is not"):
        FlowGraph.of("f", [node(0)], [Edge(source=0, target=5)])


TEXT = st.text(max_size=8)
RESOURCES = st.builds(
    Resources.of,
    num_cpus=st.floats(0, 8),
    memory=st.integers(0, 10**9),
    resources=st.dictionaries(st.sampled_from("abc"), st.floats(0, 2)),
    label_selector=st.dictionaries(st.sampled_from("xyz"), TEXT),
    scheduling_strategy=st.sampled_from([None, "SPREAD"]),
    runtime_env=st.sampled_from([{}, {"pip": ["x"]}]),
)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 1) -> FlowGraph:
    count = draw(st.integers(0, 5))
    nodes = [
        GraphNode(
            id=n,
            key=f"k-{n}",
            kind=draw(st.sampled_from(NodeKind)),
            name=draw(TEXT),
            label=draw(TEXT),
            line=draw(TEXT),
            length=draw(st.none() | st.integers(0, 9)),
            trigger_rule=draw(st.sampled_from(TriggerRule)),
            resources=draw(st.none() | RESOURCES),
        )
        for n in range(count)
    ]
    pairs = [(source, target) for target in range(count) for source in range(target)]
    edges = [
        Edge(
            source=source,
            target=target,
            kind=draw(st.sampled_from(EdgeKind)),
            parameter=draw(TEXT),
            source_item=draw(st.none() | st.integers(0, 3)),
            target_item=draw(st.none() | st.integers(0, 3)),
            allow_failure=draw(st.booleans()),
        )
        for source, target in (draw(st.lists(st.sampled_from(pairs), max_size=6)) if pairs else [])
    ]
    inner = {0: draw(graphs(depth=depth - 1))} if depth and count and draw(st.booleans()) else {}
    stop = draw(st.none() | st.builds(StopPoint, key=st.just("k-0"), line=TEXT, message=TEXT))
    return FlowGraph.of(draw(TEXT), nodes, edges, subgraphs=inner, stopped_at=stop)


@hypothesis.given(graphs())
def test_a_graph_survives_json(graph: FlowGraph) -> None:
    assert graph_from_dict(graph.to_dict()) == graph
    assert graph_from_dict(json.loads(graph.to_json())) == graph


@pytest.mark.parametrize(
    "data",
    [{}, {"flow": "f"}, DIAMOND.to_dict() | {"nodes": [{"id": 1}]}, {"flow": "f", "nodes": 3}],
)
def test_what_is_no_graph_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(errors.DefinitionError, match="not a graph that raflow wrote"):
        graph_from_dict(data)


def test_a_strategy_that_is_an_object_is_written_as_text() -> None:
    class Strategy:
        def __str__(self) -> str:
            return "near node 1"

    resources = Resources.of(scheduling_strategy=Strategy())
    graph = FlowGraph.of("f", [node(0, resources=resources)], [])
    again = graph_from_dict(graph.to_dict()).nodes[0].resources
    assert again is not None
    assert again.scheduling_strategy == "near node 1"


def test_mermaid() -> None:
    states = {0: StateType.COMPLETED, 1: "FAILED", 2: "COMPLETED"}
    assert DIAMOND.to_mermaid(states) == (
        "flowchart TD\n"
        '  n0[["extract-0 (12 items)"]]\n'
        '  n1["clean eu"]\n'
        '  n2["check-2"]\n'
        '  subgraph n3["load-3"]\n'
        '    n3_0["inner-0"]\n'
        '    n3_1["last-1"]\n'
        "    n3_0 --> n3_1\n"
        "  end\n"
        '  n4[["count-4 (? items)"]]\n'
        '  n0 -->|"rows"| n1\n'
        '  n0 -->|"rows"| n2\n'
        '  n1 -->|"table"| n3\n'
        '  n2 -.->|"if"| n3\n'
        "  n2 -.-> n4\n"
        '  nstop(["unknown from etl.py:7 on"])\n'
        "  n2 -.-> nstop\n"
        "  classDef COMPLETED fill:#009e73,color:#000000,stroke:#333333\n"
        "  class n0,n2 COMPLETED\n"
        "  classDef FAILED fill:#d55e00,color:#000000,stroke:#333333\n"
        "  class n1 FAILED\n"
    )


def test_a_subflow_whose_inside_is_unknown_is_a_node_of_its_own() -> None:
    graph = FlowGraph.of("f", [node(0, "sub", NodeKind.SUBFLOW)], [])
    assert graph.to_mermaid() == 'flowchart TD\n  n0{{"sub-0"}}\n'
    assert '  n0 [label="sub-0", shape=hexagon];\n' in graph.to_dot()


def test_dot() -> None:
    drawn = DIAMOND.to_dot({1: "FAILED"})
    assert drawn.startswith('digraph "etl" {\n')
    assert '  n0 [label="extract-0 (12 items)", shape=box3d];\n' in drawn
    coloured = 'style=filled, fillcolor="#d55e00", fontcolor="#000000"'
    assert f'  n1 [label="clean eu", shape=box, {coloured}];\n' in drawn
    assert '  subgraph cluster_n3 {\n    n3 [label="load-3", shape=hexagon];\n' in drawn
    assert '    n3_0 -> n3_1 [label=""];\n  }\n' in drawn
    assert drawn.count('n0 -> n2 [label="rows"];') == 1
    assert '  n2 -> n3 [label="if", style=dashed];\n' in drawn
    assert "  n2 -> nstop [style=dashed];\n" in drawn


@hypothesis.given(st.text(max_size=20))
def test_names_cannot_break_a_drawing(text: str) -> None:
    graph = FlowGraph.of(
        text,
        [node(0, label=text or "x"), node(1)],
        [Edge(source=0, target=1, parameter=text)],
        stopped_at=StopPoint(key="a-1", line=text, message=""),
    )
    for line in graph.to_mermaid().removesuffix("\n").split("\n")[1:]:
        assert re.fullmatch(
            r"  (n\d|nstop)[\[(]+\"[^\"`<>;]*(#\d+;[^\"`<>;]*)*\"[\])]+"
            r"|  n\d -->(\|\"[^\"`<>;]*(#\d+;[^\"`<>;]*)*\"\|)? n\d|  n\d -\.-> nstop",
            line,
        )
    for line in graph.to_dot().removesuffix("\n").split("\n"):
        without_texts = re.sub(r'"(\\.|[^"\\])*"', "T", line)
        assert re.fullmatch(r"digraph T \{|\}|  [\w >-]+ \[[\w=, ]+\];", without_texts)


def test_every_state_type_has_a_look_of_its_own() -> None:
    assert set(PALETTE) == set(StateType)
    looks = PALETTE.values()
    assert len({look.icon for look in looks}) == len({look.fill for look in looks}) == len(PALETTE)
    assert all(len(look.icon) == 1 for look in looks)


@pytest.mark.parametrize("state", StateType)
def test_texts_on_a_state_can_be_read(state: StateType) -> None:
    look = PALETTE[state]
    light, dark = sorted((luminance(look.fill), luminance(look.ink)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
