from __future__ import annotations

import threading

import pytest

from raflow import errors
from raflow.model import (
    FlowRun,
    LogLine,
    LogSegment,
    RecordBatch,
    State,
    StateName,
    TaskRun,
    TaskRunKey,
    decode_log,
    encode_log,
)
from raflow.runtime.record import _recorder
from raflow.runtime.record._recorder import Recorder, newest


class Sink:
    """Keeps what it is given; fails as often as it is told to, before or after it has written."""

    def __init__(self, failures: int = 0, *, after_writing: bool = False) -> None:
        self.failures = failures
        self.after_writing = after_writing
        self.batches: dict[tuple[str, int], RecordBatch] = {}
        self.calls = 0
        self.blobs: list[bytes] = []
        self.threads: set[int] = set()

    def apply(self, batch: RecordBatch) -> bool:
        self.calls += 1
        self.threads.add(threading.get_ident())
        fails, self.failures = self.failures > 0, self.failures - 1
        if fails and not self.after_writing:
            raise errors.StoreError("away")
        new = (batch.flow_run_id, batch.seq) not in self.batches
        self.batches.setdefault((batch.flow_run_id, batch.seq), batch)
        if fails:
            raise errors.StoreError("the answer was lost")
        return new

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        offset = sum(map(len, self.blobs))
        self.blobs.append(blob)
        return f"{flow_run_id}.log", offset

    def records(self, flow_run_id: str = "r") -> list[object]:
        batches = [b for (run, _), b in sorted(self.batches.items()) if run == flow_run_id]
        return [record for batch in batches for record in batch.records]


def task_run(item: int, name: StateName) -> TaskRun:
    return TaskRun(
        flow_run_id="r",
        key=TaskRunKey(0, item),
        task="t",
        label=f"t-0[{item}]",
        state=State(name=name, at=1.0),
    )


def flow_run(run_id: str, name: StateName) -> FlowRun:
    state = State(name=name, at=1.0)
    return FlowRun(id=run_id, flow="f", fingerprint="x", name="n", state=state)


def test_everything_is_written_once_and_in_order() -> None:
    sink = Sink()
    recorder = Recorder(sink)
    runs = [task_run(item, StateName.PENDING) for item in range(12_000)]
    for run in runs:
        recorder.add("r", run)
    recorder.flush()
    assert sink.records() == runs
    assert [seq for _, seq in sorted(sink.batches)] == list(range(len(sink.batches)))
    assert len(sink.batches) < 100, "records travel in groups"
    recorder.close()
    assert sink.threads != {threading.get_ident()}


def test_only_the_newest_row_of_a_run_is_written() -> None:
    first, second = task_run(1, StateName.PENDING), task_run(1, StateName.COMPLETED)
    other = task_run(2, StateName.PENDING)
    run, ended = flow_run("r", StateName.RUNNING), flow_run("r", StateName.COMPLETED)
    assert newest([run, first, other, second, ended]) == (other, second, ended)


def test_runs_are_kept_apart() -> None:
    sink = Sink()
    recorder = Recorder(sink)
    for run_id in ("a", "b", "a"):
        recorder.add(run_id, flow_run(run_id, StateName.RUNNING))
    recorder.close()
    assert len(sink.records("a")) == len(sink.records("b")) == 1


def test_log_segments_say_where_their_lines_are() -> None:
    sink = Sink()
    recorder = Recorder(sink)
    blob = encode_log([LogLine(1.0, 20, "stdout", "a"), LogLine(2.0, 40, "user", "b")])
    recorder.add_log("r", TaskRunKey(3), 2, blob)
    recorder.add_log("r", None, 0, blob)
    recorder.close()
    first, second = sink.records()
    assert isinstance(first, LogSegment)
    assert isinstance(second, LogSegment)
    assert (first.number, first.key, first.attempt, first.lines) == (0, TaskRunKey(3), 2, 2)
    assert (first.first_at, first.last_at, first.level) == (1.0, 2.0, 40)
    assert (second.number, second.key, second.offset) == (1, None, len(blob))


class FullDisk(Sink):
    """Has no space for log segments so often."""

    full = 3

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        self.full -= 1
        if self.full >= 0:
            raise errors.StoreError("it cannot be written") from OSError(28, "No space left")
        return super().append_log(flow_run_id, blob)


def test_log_lines_that_find_no_space_leave_a_mark_and_the_record_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = FullDisk()
    recorder = Recorder(sink)
    lines = [LogLine(1.0, 20, "stdout", "a"), LogLine(2.0, 20, "stdout", "b")]
    # Of each later one, the mark of those before it is tried first.
    for _ in range(3):
        recorder.add_log("r", TaskRunKey(3), 2, encode_log(lines))
    recorder.add("r", task_run(0, StateName.RUNNING))
    recorder.flush()
    recorder.add_log("r", TaskRunKey(4), 1, encode_log(lines))
    recorder.close()
    [record, mark, after] = sorted(sink.records(), key=lambda one: isinstance(one, LogSegment))
    assert isinstance(record, TaskRun)
    assert isinstance(mark, LogSegment)
    assert isinstance(after, LogSegment)
    assert (mark.number, mark.key, mark.attempt, mark.first_at) == (0, TaskRunKey(3), 2, 1.0)
    assert decode_log(sink.blobs[0])[0].text == "6 lines lost: No space left"
    assert (after.number, after.key, after.lines) == (1, TaskRunKey(4), 2)
    assert caplog.text.count("Log lines are lost") == 1


@pytest.mark.parametrize("after_writing", [False, True])
def test_a_failing_store_is_tried_again(after_writing: bool) -> None:
    sink = Sink(failures=2, after_writing=after_writing)
    recorder = Recorder(sink)
    recorder.add("r", task_run(0, StateName.PENDING))
    recorder.flush()
    assert sink.calls == 3
    assert len(sink.records()) == 1
    recorder.close()


def test_a_store_that_stays_away_is_told_by_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recorder, "_PATIENCE_SECONDS", 0.2)
    sink = Sink(failures=1_000)
    recorder = Recorder(sink)
    recorder.add("r", task_run(0, StateName.PENDING))
    with pytest.raises(errors.StoreError, match="away"):
        recorder.flush()
    recorder.close()


def test_a_bug_in_the_store_is_told_and_nobody_waits_for_ever() -> None:
    class Broken(Sink):
        def apply(self, batch: RecordBatch) -> bool:
            raise KeyError("a column")

    recorder = Recorder(Broken())
    recorder.add("r", task_run(0, StateName.COMPLETED))
    with pytest.raises(errors.StoreError, match=r"KeyError: 'a column'.*bug in raflow"):
        recorder.flush()
    recorder.close()
