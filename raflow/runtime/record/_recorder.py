"""The recorder: the one writer of a flow run's history, on a thread of its own."""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from raflow import errors
from raflow._util import crash_point
from raflow.model import (
    FlowRun,
    GraphRecord,
    LogLine,
    LogSegment,
    Record,
    RecordBatch,
    RunNumbers,
    TaskRun,
    TaskRunKey,
    decode_log,
    encode_log,
)

T = TypeVar("T")

_GROUP_SECONDS: Final = 0.05
_GROUP_RECORDS: Final = 5_000
_BACKLOG: Final = 100_000
_PATIENCE_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.1

_LOG: Final = logging.getLogger("raflow.runtime")


class Sink(Protocol):
    """Where history goes: the store."""

    def apply(self, batch: RecordBatch) -> bool:
        """Write a batch, unless it has been written already."""

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        """Store a log segment; return its file and offset."""


class _Rows(NamedTuple):
    flow_run_id: str
    records: tuple[Record, ...]


class _Log(NamedTuple):
    flow_run_id: str
    key: TaskRunKey | None
    attempt: int
    blob: bytes


class _Place(NamedTuple):
    """What log lines are of."""

    flow_run_id: str
    key: TaskRunKey | None
    attempt: int


class _Dropped(NamedTuple):
    """Log lines that could not be written."""

    lines: int
    at: float
    """When the first of them was written."""
    why: str


class _Flush(NamedTuple):
    done: Future[None]


class _Question(NamedTuple):
    ask: Callable[[], object]
    answer: Future[Any]


_Item: TypeAlias = _Rows | _Log | _Flush | _Question


class Recorder:
    """Writes the history of a flow run and its subflows in groups, while the run goes on.

    Of several records of one run that wait together only the newest is written: each is a whole
    row. While the store cannot be written, records wait in a bounded queue and the run slows down
    to the pace of that queue; after half a minute the recorder gives up and `flush` raises.

    Log lines are not waited for: what cannot be written is dropped, the log says so in its place
    once there is space again, and the record goes on.
    """

    def __init__(self, sink: Sink) -> None:
        """Start the thread."""
        self._sink = sink
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._backlog = 0
        self._next_batch: dict[str, int] = defaultdict(int)
        self._next_segment: dict[str, int] = defaultdict(int)
        self._incarnations: dict[str, int] = defaultdict(lambda: 1)
        self._error: errors.RaflowError | None = None
        self._dropped: dict[_Place, _Dropped] = {}
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="raflow-recorder", daemon=True)
        self._thread.start()

    def go_on(self, flow_run_id: str, incarnation: int, numbers: RunNumbers) -> None:
        """Go on with the record of a flow run that another process began; before its first row.

        Args:
            flow_run_id: The flow run.
            incarnation: The number of this process among those of the run.
            numbers: Where to go on counting.
        """
        self._incarnations[flow_run_id] = incarnation
        self._next_batch[flow_run_id] = numbers.batch
        self._next_segment[flow_run_id] = numbers.segment

    def add(self, flow_run_id: str, *records: Record) -> None:
        """Take rows of one flow run; blocks only while the backlog is full."""
        self._put(_Rows(flow_run_id, records))

    def add_log(
        self, flow_run_id: str, key: TaskRunKey | None, attempt: int, segment: bytes
    ) -> None:
        """Take a compressed log segment; see `raflow.model.encode_log`."""
        self._put(_Log(flow_run_id, key, attempt, segment))

    def _put(self, item: _Rows | _Log) -> None:
        with self._room:
            while self._backlog >= _BACKLOG:
                self._room.wait()
            self._backlog += _weight(item)
        self._queue.put(item)

    def flush(self) -> None:
        """Wait until everything taken so far is on disk.

        Raises:
            StoreError: The store could not be written; what is missing is lost.
        """
        done: Future[None] = Future()
        self._queue.put(_Flush(done))
        done.result()

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have a question about the record answered on the recorder's thread, in its turn."""
        answer: Future[T] = Future()
        self._queue.put(_Question(question, answer))
        return answer

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            items, closing = self._collect()
            self._write(items)
            with self._room:
                self._backlog -= sum(map(_weight, items))
                self._room.notify_all()
            for item in items:
                if isinstance(item, _Flush):
                    self._answer(item)
                elif isinstance(item, _Question):
                    _answer_question(item)
            if closing:
                return

    def _collect(self) -> tuple[list[_Item], bool]:
        """Wait for something to write, then for what comes soon after it."""
        items: list[_Item] = []
        deadline = 0.0
        weight = 0
        while weight < _GROUP_RECORDS:
            try:
                left = deadline - time.monotonic() if items else None
                item = self._queue.get(timeout=None if left is None else max(left, 0.0))
            except queue.Empty:
                break
            if item is None:
                return items, True
            if not items:
                deadline = time.monotonic() + _GROUP_SECONDS
            items.append(item)
            weight += _weight(item)
            if isinstance(item, _Flush):
                break
        return items, False

    def _answer(self, flush: _Flush) -> None:
        if self._error is None:
            flush.done.set_result(None)
        else:
            flush.done.set_exception(self._error)

    def _write(self, items: Iterable[_Item]) -> None:
        rows: dict[str, list[Record]] = defaultdict(list)
        for item in items:
            if isinstance(item, _Rows):
                rows[item.flow_run_id].extend(item.records)
            elif isinstance(item, _Log):
                crash_point("recorder.before_log")
                rows[item.flow_run_id] += self._log(item)
            elif isinstance(item, _Flush) and self._dropped:
                for segment in self._marks():
                    rows[segment.flow_run_id].append(segment)
        for flow_run_id, records in rows.items():
            batch = RecordBatch(
                flow_run_id=flow_run_id,
                seq=self._next_batch[flow_run_id],
                records=newest(records),
                incarnation=self._incarnations[flow_run_id],
            )
            self._next_batch[flow_run_id] += 1
            crash_point("recorder.before_commit")
            self._persist(functools.partial(self._sink.apply, batch))
            crash_point("recorder.after_commit")

    def _log(self, log: _Log) -> list[LogSegment]:
        """Store a segment behind the marks of those that found no space; drop it if need be."""
        stored = self._marks()
        place = _Place(log.flow_run_id, log.key, log.attempt)
        lines = decode_log(log.blob)
        if place not in self._dropped:
            segment = self._stored(log, lines)
            if not isinstance(segment, errors.StoreError):
                return stored if segment is None else [*stored, segment]
            self._warn(segment)
            self._dropped[place] = _Dropped(0, lines[0].at, _reason(segment))
        before = self._dropped[place]
        self._dropped[place] = before._replace(lines=before.lines + len(lines))
        return stored

    def _marks(self) -> list[LogSegment]:
        """Say where lines were dropped that they are missing, as soon as there is space."""
        stored: list[LogSegment] = []
        for place, (count, at, why) in list(self._dropped.items()):
            told = LogLine(at, logging.WARNING, "raflow", f"{count} lines lost: {why}")
            segment = self._stored(_Log(*place, encode_log([told])), [told])
            if not isinstance(segment, LogSegment):
                break
            stored.append(segment)
            del self._dropped[place]
        return stored

    def _stored(self, log: _Log, lines: Sequence[LogLine]) -> LogSegment | errors.StoreError | None:
        """Store a segment; returns why not if it is the disk, None if the record has failed."""

        def attempt() -> LogSegment | errors.StoreError:
            try:
                return self._store_log(log, lines)
            except errors.StoreError as error:
                if isinstance(error.__cause__, OSError):
                    return error
                raise

        return self._persist(attempt)

    def _warn(self, error: errors.StoreError) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning("Log lines are lost; the record goes on without them. %s", error)

    def _store_log(self, log: _Log, lines: Sequence[LogLine]) -> LogSegment:
        file, offset = self._sink.append_log(log.flow_run_id, log.blob)
        number = self._next_segment[log.flow_run_id]
        self._next_segment[log.flow_run_id] += 1
        return LogSegment(
            flow_run_id=log.flow_run_id,
            number=number,
            key=log.key,
            attempt=log.attempt,
            file=file,
            offset=offset,
            length=len(log.blob),
            lines=len(lines),
            first_at=lines[0].at,
            last_at=lines[-1].at,
            level=_highest_level(lines),
        )

    def _persist(self, write: Callable[[], T]) -> T | None:
        """Write, again and again if need be: batches are idempotent, so that is safe."""
        if self._error is not None:
            return None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return write()
            except errors.FencedError as error:
                self._error = error
                return None
            except errors.RaflowError as error:
                if time.monotonic() + pause > deadline:
                    self._error = error
                    return None
                time.sleep(pause)
                pause *= 2
            except Exception as error:
                # A bug of raflow's. If this thread ended, the run would wait for it for ever.
                self._error = errors.StoreError(
                    f"The record could not be written: {type(error).__name__}: {error}. This is a "
                    "bug in raflow: please report it with this message."
                )
                self._error.__cause__ = error
                return None


def _answer_question(question: _Question) -> None:
    try:
        question.answer.set_result(question.ask())
    except Exception as error:
        question.answer.set_exception(error)


def newest(records: Iterable[Record]) -> tuple[Record, ...]:
    """Drop rows that a later record of the same run replaces; keep the order of the rest."""
    kept: dict[object, Record] = {}
    for position, record in enumerate(records):
        key: object = position
        if isinstance(record, TaskRun):
            key = record.key
        elif isinstance(record, FlowRun):
            key = record.id
        kept.pop(key, None)
        kept[key] = record
    return tuple(kept.values())


def _weight(item: _Item) -> int:
    if not isinstance(item, _Rows):
        return 1
    graph = [len(r.nodes) + len(r.edges) for r in item.records if isinstance(r, GraphRecord)]
    return len(item.records) + sum(graph)


def _reason(error: errors.StoreError) -> str:
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error)


def _highest_level(lines: Iterable[LogLine]) -> int:
    return max(line.level for line in lines)
