"""Runs commands in this process, and records to look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from raflow import config
from raflow.cli import main
from raflow.model import (
    Attempt,
    Cause,
    Edge,
    EdgeKind,
    ErrorInfo,
    FlowRun,
    FlowVersion,
    GraphNode,
    GraphRecord,
    LogLine,
    LogSegment,
    NodeKind,
    Outcome,
    Record,
    RecordBatch,
    ResultInfo,
    State,
    StateName,
    TaskRun,
    TaskRunKey,
    encode_log,
)
from raflow.store import Store

T0 = 1_790_000_000.0
RUN_ID = "01900000-0000-7000-8000-0000000000aa"
OLD_ID = "01800000-0000-7000-8000-0000000000bb"


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Cli]:
    """Run a command in `tmp_path`, with the local backend, as wide as a pipe is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    path, modules = list(sys.path), set(sys.modules)

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["raflow", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def state(name: StateName, at: float = T0, message: str = "") -> State:
    return State(name=name, at=at, message=message)


@pytest.fixture
def record(raflow_home: Path) -> Iterator[Store]:
    """A record with two flow runs: one that failed, and an older one that completed."""
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        for run_id, records in ((RUN_ID, failed_run()), (OLD_ID, completed_run())):
            store.apply(RecordBatch(flow_run_id=run_id, seq=0, records=records))
        add_logs(store)
        yield store


def failed_run() -> tuple[Record, ...]:
    """`etl-0000aa`: reads, cleans three items of which one failed and one recovered, adds up."""
    run = FlowRun(
        id=RUN_ID,
        flow="etl",
        fingerprint="f1",
        name="etl-0000aa",
        state=state(StateName.FAILED, T0 + 9, "Flow 'etl' failed: clean-0[1] did not complete."),
        parameters={"day": "2026-01-01", "n": 3},
        backend="local",
        created_at=T0,
        started_at=T0 + 1,
        ended_at=T0 + 9,
        versions={"python": "3.11.7"},
        error=ErrorInfo(
            type="raflow.errors.FlowRunFailedError",
            message="Flow 'etl' failed: clean-0[1] did not complete.",
        ),
    )
    nodes = (
        GraphNode(id=0, key="read-0", kind=NodeKind.TASK, name="read", line="etl.py:9"),
        GraphNode(id=1, key="clean-0", kind=NodeKind.MAP, name="clean", length=3, line="etl.py:10"),
        GraphNode(id=2, key="total-0", kind=NodeKind.TASK, name="total", line="etl.py:11"),
    )
    edges = (
        Edge(source=0, target=1, kind=EdgeKind.ITEM, parameter="x"),
        Edge(source=1, target=2, parameter="xs"),
    )
    error = ErrorInfo(
        type="builtins.ValueError",
        message="bad row",
        traceback='Traceback (most recent call last):\n  File "etl.py", line 4, in clean\n'
        "ValueError: bad row\n",
    )
    return (
        FlowVersion(flow="etl", fingerprint="f1", entrypoint="etl.py:etl", created_at=T0),
        run,
        *(GraphRecord(flow_run_id=RUN_ID, nodes=(node,)) for node in nodes),
        *(GraphRecord(flow_run_id=RUN_ID, edges=(edge,)) for edge in edges),
        task_run(0, -1, "read", "read-0", StateName.COMPLETED),
        task_run(1, 0, "clean", "clean-0[0]", StateName.COMPLETED),
        task_run(1, 1, "clean", "clean-0[1]", StateName.FAILED, attempts=2, error=error),
        task_run(1, 2, "clean", "odd one", StateName.RECOVERED, attempts=2),
        task_run(2, -1, "total", "total-0", StateName.UPSTREAM_FAILED, attempts=0),
        *(attempt(0, -1, 1), attempt(1, 0, 1), attempt(1, 1, 1), attempt(1, 1, 2)),
    )


def completed_run() -> tuple[Record, ...]:
    """`old-0000bb`: a flow without tasks."""
    result = ResultInfo(
        type="builtins.dict",
        size=240,
        preview="{'rows': 3}",
        length=1,
        truth=True,
        serializer="json",
        inline=b'{"rows": 3}',
        digest="d",
    )
    run = FlowRun(
        id=OLD_ID,
        flow="old",
        fingerprint="f2",
        name="old-0000bb",
        state=state(StateName.COMPLETED, T0 - 90),
        created_at=T0 - 100,
        started_at=T0 - 100,
        ended_at=T0 - 90,
        result=result,
    )
    return FlowVersion(flow="old", fingerprint="f2", created_at=T0 - 100), run


def task_run(
    node: int,
    item: int,
    task: str,
    label: str,
    name: StateName,
    *,
    attempts: int = 1,
    error: ErrorInfo | None = None,
) -> TaskRun:
    begun = T0 + 1 + node if attempts else None
    return TaskRun(
        flow_run_id=RUN_ID,
        key=TaskRunKey(node, item),
        task=task,
        label=label,
        state=state(name, T0 + 3 + node),
        attempts=attempts,
        created_at=T0 + 1,
        started_at=begun,
        ended_at=T0 + 3 + node,
        error=error,
    )


def attempt(node: int, item: int, number: int) -> Attempt:
    return Attempt(
        flow_run_id=RUN_ID,
        key=TaskRunKey(node, item),
        number=number,
        outcome=Outcome.COMPLETED,
        submitted_at=T0 + 1,
        started_at=T0 + 1 + node,
        ended_at=T0 + 3 + node,
        cpu_seconds=1.5,
        peak_memory=64 << 20,
        cause=Cause(kind="signal", signal=11, host="a", pid=7) if number > 1 else None,
    )


def add_logs(store: Store) -> None:
    """Two segments whose lines interleave in time, and one of the body."""
    written = {
        (TaskRunKey(0), 1): [
            LogLine(T0 + 1.0, 20, "stdout", "reading"),
            LogLine(T0 + 1.4, 30, "stderr", "slow disk"),
        ],
        (TaskRunKey(1, 1), 2): [
            LogLine(T0 + 1.2, 20, "app", "second try"),
            LogLine(T0 + 1.6, 40, "app", "gave up"),
        ],
        (None, 0): [LogLine(T0 + 1.1, 10, "app.body", "detail")],
    }
    segments: list[Record] = []
    for number, ((key, tried), lines) in enumerate(written.items()):
        blob = encode_log(lines)
        file, offset = store.append_log(RUN_ID, blob)
        segments.append(
            LogSegment(
                flow_run_id=RUN_ID,
                number=number,
                key=key,
                attempt=tried,
                file=file,
                offset=offset,
                length=len(blob),
                lines=len(lines),
                first_at=lines[0].at,
                last_at=lines[-1].at,
                level=max(line.level for line in lines),
            )
        )
    store.apply(RecordBatch(flow_run_id=RUN_ID, seq=1, records=tuple(segments)))
