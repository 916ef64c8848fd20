"""Graphs, logs and runs in the forms that the example record does not have."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from raflow.cli import _graph_text, _logs, _show, _task_rows
from raflow.model import (
    Edge,
    EdgeKind,
    ErrorInfo,
    FlowGraph,
    FlowRun,
    GraphNode,
    GraphRecord,
    LogLine,
    LogSegment,
    NodeKind,
    Record,
    RecordBatch,
    StateName,
    TaskRunKey,
    encode_log,
)
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, T0, Cli, failed_run, state, task_run


def node(number: int, kind: NodeKind = NodeKind.TASK, length: int | None = None) -> GraphNode:
    name = "abcdef"[number]
    return GraphNode(id=number, key=f"{name}-0", kind=kind, name=name, length=length)


def lines_of(drawing: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(drawing)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_each_kind_of_need_and_of_call_in_the_text_of_a_graph() -> None:
    inner = FlowGraph.of("sub", [node(0)], [])
    nodes = [
        node(0),
        node(1, NodeKind.MAP, 1),
        node(2, NodeKind.MAP),
        node(3, NodeKind.SUBFLOW),
        node(4),
    ]
    edges = [
        Edge(source=0, target=1, kind=EdgeKind.ORDER),
        Edge(source=1, target=2, kind=EdgeKind.ITEM, parameter="x"),
        Edge(source=1, target=3, source_item=0, parameter="one"),
        Edge(source=0, target=4, kind=EdgeKind.CONDITION),
        Edge(source=3, target=4),
    ]
    graph = FlowGraph.of("f", nodes, edges, subgraphs={3: inner})
    assert [line.split() for line in lines_of(_graph_text.render(graph))[2:]] == [
        ["a-0", "1"],
        ["b-0", "1", "item", "after", "a-0"],
        ["c-0", "map", "x", "=", "each", "of", "b-0"],
        ["d-0", "subflow", "one", "=", "b-0[0]"],
        ["a-0", "1"],
        ["e-0", "1", "if", "a-0,", "d-0"],
    ]


def segment(number: int, key: TaskRunKey | None, lines: list[LogLine]) -> LogSegment:
    return LogSegment(
        flow_run_id=RUN_ID,
        number=number,
        key=key,
        attempt=1,
        file="f",
        offset=0,
        length=1,
        lines=len(lines),
        first_at=lines[0].at,
        last_at=lines[-1].at,
        level=20,
    )


def test_a_segment_is_read_only_when_its_turn_comes() -> None:
    texts = {
        n: [LogLine(T0 + n, 20, "s", f"{n}"), LogLine(T0 + n + 1.5, 20, "s", f"{n}+")]
        for n in range(100)
    }
    segments = [segment(n, None, lines) for n, lines in texts.items()]
    read: list[int] = []

    def reader(found: LogSegment) -> list[LogLine]:
        read.append(found.number)
        return texts[found.number]

    merged = _logs.merge_lines(segments[::-1], reader)
    first = [next(merged)[0].text for _ in range(5)]
    assert first == ["0", "1", "0+", "2", "1+"]
    assert len(read) <= 4
    rest = [line for line, _ in merged]
    assert len(rest) == 195
    assert rest == sorted(rest, key=lambda line: line.at)


def test_following_shows_what_comes_and_ends_with_the_run(record: Store) -> None:
    run = record.find_flow_run(RUN_ID)
    going = replace(run, state=state(StateName.RUNNING), ended_at=None)
    record.apply(RecordBatch(flow_run_id=RUN_ID, seq=10, records=(going,)))
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        line = LogLine(T0 + 5 + len(naps), 20, "app", f"new {len(naps)}")
        blob = encode_log([line])
        file, offset = record.append_log(RUN_ID, blob)
        fresh: list[Record] = [
            replace(
                segment(10 + len(naps), TaskRunKey(0), [line]),
                file=file,
                offset=offset,
                length=len(blob),
            )
        ]
        if len(naps) == 2:
            fresh.append(run)
        record.apply(RecordBatch(flow_run_id=RUN_ID, seq=10 + len(naps), records=tuple(fresh)))

    log = _logs.Logs(record, going)
    texts = [line.text for line, _ in log.follow(sleep)]
    assert texts[5:] == ["new 1", "new 2"]
    assert naps == [_logs.POLL_SECONDS] * 2


def test_too_many_task_runs_are_counted_only(
    record: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_task_rows, "_READ_AT_MOST", 2)
    rows = _task_rows.task_rows(record, record.find_flow_run(RUN_ID))
    assert [row.attempts for row in rows] == [None, None, None]
    assert sum(rows[1].counts.values()) == 3
    assert [dict(row.special) for row in rows] == [{}, {StateName.RECOVERED: 1}, {}]


def test_a_subflow_leads_to_its_own_run(record: Store) -> None:
    child = replace(task_run(3, -1, "sub", "sub-0", StateName.COMPLETED), child_flow_run_id="c1")
    made = GraphNode(id=3, key="sub-0", kind=NodeKind.SUBFLOW, name="sub")
    records = (GraphRecord(flow_run_id=RUN_ID, nodes=(made,)), child)
    record.apply(RecordBatch(flow_run_id=RUN_ID, seq=10, records=records))
    run = record.find_flow_run(RUN_ID)
    rows = _task_rows.task_rows(record, run)
    assert _show.next_commands(run, rows, shown=True)[0] == "raflow runs show c1"
    assert _show.next_commands(run, rows, shown=False)[0] == "raflow runs show etl-0000aa"


def test_a_run_that_goes_on_can_be_followed() -> None:
    run = replace(flow_run_of(failed_run()), state=state(StateName.RUNNING), ended_at=None)
    assert _show.next_commands(run, [], shown=True)[1].endswith("--follow")


def flow_run_of(records: tuple[Record, ...]) -> FlowRun:
    return next(record for record in records if isinstance(record, FlowRun))


@pytest.mark.parametrize(
    ("name", "short"),
    [("etl-0000aa", "etl-0000aa"), ("nightly", "0000000000aa"), ("my 0000aa", "0000000000aa")],
)
def test_a_run_is_named_by_what_is_unique(name: str, short: str) -> None:
    assert replace(flow_run_of(failed_run()), name=name).short_name == short


def test_many_failures_are_told_by_a_few(cli: Cli, record: Store) -> None:
    error = ErrorInfo(type="builtins.KeyError", message="k", traceback='  File "x.py", line 1\n')
    failed = [
        task_run(1, item, "clean", f"clean-0[{item}]", StateName.FAILED, error=error)
        for item in range(10, 40)
    ]
    record.apply(RecordBatch(flow_run_id=RUN_ID, seq=10, records=tuple(failed)))
    out = cli("runs", "show", RUN_ID).out
    assert out.count("KeyError: k") == 4
    assert out.count('File "x.py"') == 0  # the first panel has the traceback, of another failure
    assert "15 or more task runs that failed" in out
