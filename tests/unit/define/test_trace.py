"""Drawing a flow without running its tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from raflow import errors
from raflow.define import active_flow, allow_failure, flow, task
from raflow.model import Edge, EdgeKind, NodeKind, TriggerRule
from tests.unit.define.fake_flow import FakeFlow

RAN: list[str] = []


@task(num_cpus=2, trigger_rule="all_done")
def extract(region: str) -> list[int]:
    RAN.append("extract")
    return [1]


@task
def load(rows: Any, mode: Any = "add") -> int:
    RAN.append("load")
    return 0


@flow
def copy_region(region: str) -> Any:
    return load(extract(region))


@flow
def etl(regions: list[str], check: bool = False) -> Any:
    pieces = extract.map(regions)
    loaded = load(pieces, mode=allow_failure(extract("x")))
    load.submit(1, wait_for=loaded, run_if=pieces[1])
    copied = copy_region("eu")
    copy_region(copied)
    if check and loaded.result() > 3:
        load(0)
    return loaded


@pytest.fixture(autouse=True)
def _nothing_ran() -> Any:
    RAN.clear()
    yield
    assert RAN == []


def test_calls_become_nodes_and_futures_become_edges() -> None:
    graph = etl.compile(["eu", "us"])
    assert [(n.id, n.key, n.kind, n.length) for n in graph.nodes] == [
        (0, "extract-0", NodeKind.MAP, 2),
        (1, "extract-1", NodeKind.TASK, None),
        (2, "load-0", NodeKind.TASK, None),
        (3, "load-1", NodeKind.TASK, None),
        (4, "copy_region-0", NodeKind.SUBFLOW, None),
        (5, "copy_region-1", NodeKind.SUBFLOW, None),
    ]
    first = graph.nodes[0]
    assert (first.name, first.trigger_rule) == ("extract", TriggerRule.ALL_DONE)
    assert first.resources == extract.options.resources
    assert (graph.nodes[4].resources, graph.flow, graph.stopped_at) == (None, "etl", None)
    assert all(node.line.startswith("test_trace.py:") for node in graph.nodes)
    assert graph.edges == (
        Edge(source=0, target=2, parameter="rows"),
        Edge(source=1, target=2, parameter="mode", allow_failure=True),
        Edge(source=2, target=3, kind=EdgeKind.ORDER),
        Edge(source=0, target=3, kind=EdgeKind.CONDITION, parameter="run_if", source_item=1),
        Edge(source=4, target=5, parameter="region"),
    )


def test_only_the_first_item_of_an_iterator_is_read_and_it_has_no_length() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(3):
            read.append(n)
            yield n

    @flow
    def body() -> None:
        load.map(extract.map(numbers()))

    graph = body.compile()
    assert [(n.key, n.length) for n in graph.nodes] == [("extract-0", None), ("load-0", None)]
    assert graph.edges == (Edge(source=0, target=1, kind=EdgeKind.ITEM, parameter="rows"),)
    assert read == [0]


def test_subflows_are_drawn_inside_where_their_parameters_are_known() -> None:
    subgraphs = etl.compile(["eu", "us"]).subgraphs
    assert {node: [n.key for n in graph.nodes] for node, graph in subgraphs.items()} == {
        4: ["extract-0", "load-0"]
    }


def test_a_subflow_that_does_not_run_is_not_drawn_inside() -> None:
    @flow
    def parent() -> None:
        copy_region.submit("eu", run_if=False)

    graph = parent.compile()
    assert (len(graph.nodes), graph.subgraphs) == (1, {})


def test_parameters_are_validated_first() -> None:
    with pytest.raises(errors.ParameterError, match="regions=3"):
        etl.compile(3)  # type: ignore[arg-type]  # on purpose

    @flow
    def parent() -> None:
        copy_region(5)  # type: ignore[arg-type]  # on purpose

    with pytest.raises(errors.ParameterError, match=r"Flow 'copy_region' .* region=5"):
        parent.compile()


def test_a_needed_value_ends_the_graph_and_is_reported_with_its_line() -> None:
    graph = etl.compile(["eu", "us"], check=True)
    assert len(graph.nodes) == 6
    assert graph.stopped_at is not None
    assert graph.stopped_at.key == "load-0"
    line = etl.source.splitlines().index("    if check and loaded.result() > 3:")
    assert graph.stopped_at.line == f"test_trace.py:{etl.fn.__code__.co_firstlineno + line}"
    assert f"known up to {graph.stopped_at.line}" in graph.stopped_at.message
    assert "needs the value of 'load-0'" in graph.stopped_at.message
    assert "run_if=" in graph.stopped_at.message


@pytest.mark.parametrize("need", ["result", "state", "wait", "done", "length", "loop", "states"])
def test_everything_that_waits_is_a_need(need: str) -> None:
    @flow
    def body() -> None:
        one = extract("x")
        many = extract.map(one)
        uses: dict[str, Any] = {
            "result": one.result,
            "state": lambda: one.state,
            "wait": lambda: one.wait(1),
            "done": one.done,
            "length": lambda: len(many),
            "loop": lambda: [*many],
            "states": lambda: many.states,
        }
        uses[need]()
        load(1)

    graph = body.compile()
    assert [n.key for n in graph.nodes] == ["extract-0", "extract-1"]
    assert graph.stopped_at is not None
    assert graph.stopped_at.key == (
        "extract-1" if need in {"length", "loop", "states"} else "extract-0"
    )


def test_code_that_swallows_the_stop_cannot_go_on() -> None:
    @flow
    def body() -> None:
        one = extract("x")
        with contextlib.suppress(Exception):
            one.result()
        load(1)

    assert len(body.compile().nodes) == 1

    @flow
    def stubborn() -> None:
        one = extract("x")
        try:
            one.result()
        except BaseException:  # what careless code does
            load(1)

    graph = stubborn.compile()
    assert len(graph.nodes) == 1
    assert graph.stopped_at is not None


def test_the_parent_goes_on_after_a_subflow_that_needs_a_value() -> None:
    @flow
    def needs() -> int:
        return extract("x").result()[0]

    @flow
    def parent() -> None:
        load(needs())

    graph = parent.compile()
    assert [n.key for n in graph.nodes] == ["needs-0", "load-0"]
    assert graph.stopped_at is None
    assert graph.subgraphs[0].stopped_at is not None


def test_async_flows_are_drawn_too() -> None:
    @flow
    async def inner(n: int) -> None:
        await asyncio.sleep(0)
        load(n)

    @flow
    async def outer() -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        await asyncio.sleep(0)
        inner.submit(1)
        one = extract("x")
        async with asyncio.TaskGroup() as group:

            async def wait() -> Any:
                return await one

            group.create_task(wait())
        load(one)

    for graph in (outer.compile(), asyncio.run(compiled_inside_a_loop(outer))):
        assert [n.key for n in graph.nodes] == ["inner-0", "extract-0"]
        assert [n.key for n in graph.subgraphs[0].nodes] == ["load-0"]
        assert graph.stopped_at is not None
        assert graph.stopped_at.key == "extract-0"


async def compiled_inside_a_loop(made: Any) -> Any:
    return made.compile()


def test_an_error_of_the_body_is_raised() -> None:
    @flow
    def body() -> None:
        extract("x")
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        body.compile()


def test_tracing_leaves_the_flow_around_it_alone(body: FakeFlow) -> None:
    assert len(etl.compile(["a", "b"]).nodes) == 6
    assert active_flow.get() is body
    assert body.requests == []


@flow
def ping(n: int) -> Any:
    return pong(n)


@flow
def pong(n: int) -> Any:
    return ping(n)


@flow
def grows(n: int) -> Any:
    return grows(n + 1)


@flow
def ends(n: int) -> Any:
    return ends(n - 1) if n else load(n)


def test_flows_that_call_each_other_without_end_are_refused() -> None:
    with pytest.raises(
        errors.CycleError, match=r"Flow 'ping' calls itself .* ping -> pong -> ping\."
    ):
        ping.compile(1)
    with pytest.raises(errors.CycleError, match=r"without end: grows -> grows\."):
        grows.compile(1)


def test_a_flow_that_calls_itself_until_it_is_done_is_fine() -> None:
    graph = ends.compile(3)
    depth = 0
    while graph.subgraphs:
        graph, depth = graph.subgraphs[0], depth + 1
    assert (depth, [n.key for n in graph.nodes]) == (3, ["load-0"])


def test_parameters_that_refuse_to_be_compared_count_as_different() -> None:
    class Odd:
        def __init__(self, left: int) -> None:
            self.left = left

        def __eq__(self, other: object) -> bool:
            raise ValueError("no")

        __hash__ = None  # type: ignore[assignment]  # as it is for arrays

    @flow
    def down(value: Odd) -> Any:
        return down(Odd(value.left - 1)) if value.left else 0

    assert len(down.compile(Odd(2)).subgraphs) == 1
