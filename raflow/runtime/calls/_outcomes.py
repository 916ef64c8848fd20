"""What has become of each call, for whoever waits for it: the body's threads and event loops."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from raflow._util import maker
from raflow.execute import Known, ValueRef, ValueSlice
from raflow.model import Chunk, ErrorInfo, State, StateName, StateType, TaskRunKey
from raflow.runtime.calls._failures import exception_of
from raflow.runtime.calls._spans import ValueSpan, ValueSpans

Value: TypeAlias = ValueRef | Known
"""Where a value is."""


@dataclass(slots=True)
class RunOutcome:
    """A task run that did not simply complete, as the driver sees it."""

    label: str
    state: State
    value: Value | None = None
    """Where the value is, once the run has completed."""
    error: ErrorInfo | None = None
    """The last attempt's exception, if it had one."""
    exception: BaseException | None = None
    """The failure as an exception, once it was asked for; that of a subflow is known as it ends."""

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than completed or skipped."""
        return self.state.is_final and self.state.type not in _HAPPY

    @property
    def has_lost_its_value(self) -> bool:
        """Whether it completed, and nobody has its value any more."""
        return self.value is None and self.state.type is StateType.COMPLETED

    def failure(self) -> BaseException:
        """Return the failure as an exception, always the same one."""
        if self.exception is None:
            self.exception = exception_of(self.label, self.state, self.error)
        return self.exception


T = TypeVar("T")

_HAPPY: Final = frozenset({StateType.COMPLETED, StateType.SKIPPED})


@dataclass(slots=True)
class _Map:
    """The items of a map."""

    length: int | None = None
    final: bytearray = field(default_factory=bytearray)
    """For each item 1 if its run is final."""
    done: int = 0
    prefix: int = 0
    """So many items, from the first on, are final."""
    spans: ValueSpans = field(default_factory=ValueSpans)
    told: dict[int, RunOutcome] = field(default_factory=dict)
    """Items that did not simply complete. Under -1 the one run of a map without items."""

    @property
    def is_whole(self) -> bool:
        if self.length == 0 and -1 in self.told:
            return self.told[-1].state.is_final
        return self.length is not None and self.done >= self.length

    def finish(self, start: int, stop: int) -> None:
        if len(self.final) < stop:
            self.final.extend(bytes(stop - len(self.final)))
        self.done += stop - start - sum(self.final[start:stop])
        self.final[start:stop] = b"\1" * (stop - start)
        if start <= self.prefix:
            hole = self.final.find(0, self.prefix)
            self.prefix = len(self.final) if hole < 0 else hole

    def begin_again(self, item: int) -> None:
        """Take note that an item goes on, perhaps because its value was lost."""
        if item < len(self.final) and self.final[item]:
            self.done -= 1
            self.final[item] = 0
            self.prefix = min(self.prefix, item)


class _Released:
    """Stands for a value that nobody can ask for any more."""


_RELEASED: Final = _Released()

_End: TypeAlias = ValueRef | RunOutcome | _Map | _Released | None
"""A single call that has completed; one that did not simply do so; a map; what is let go; a call of
which nothing is known yet."""

Piece: TypeAlias = ValueRef | ValueSlice | RunOutcome
"""Values of items side by side, or one item that did not simply complete."""

_value_ref: Final = maker(ValueRef)
_MANY: Final = 1000
_WHOLE: Final = -2
_LENGTH: Final = -3


class Outcomes:
    """A table that one thread (the driver) writes and any thread reads and waits on."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._ends: list[_End] = []
        self._watched: dict[tuple[int, int], Future[None]] = {}
        self._awaited: list[Future[Any]] = []
        """What else somebody waits for, or has waited for."""
        self._stopped: BaseException | None = None
        self._over: BaseException | None = None

    # Writing ------------------------------------------------------------------------------------

    def called(self, mapped: Iterable[bool]) -> None:
        """Take note of the next calls of the body: whether each is mapped."""
        self._ends += [_Map() if is_map else None for is_map in mapped]

    def expanded(self, node: int, length: int) -> None:
        """Take note of the number of items of a map."""
        with self._lock:
            found = self._map(node)
            found.length = length
            done = self._done(node, _LENGTH)
            if found.is_whole:
                done += self._done(node, _WHOLE)
        _wake(done)

    def completed(self, chunks: Sequence[tuple[Chunk, int]], values: object) -> None:
        """Take note of calls that have completed.

        Args:
            chunks: The calls, and where the value of the first of each chunk is among the values;
                -1: the object is the value.
            values: The object that holds their values.
        """
        done: list[Future[None]] = []
        with self._lock:
            ends = self._ends
            for (node, start, stop, _), position in chunks:
                if start < 0:
                    ends[node] = _value_ref((values, position))
                    continue
                found = self._map(node)
                for item in [i for i in found.told if start <= i < stop]:
                    del found.told[item]
                found.spans.add(ValueSpan(start, stop, values, position))
                found.finish(start, stop)
            for chunk, _ in chunks if self._watched else ():
                done += self._finished(chunk)
        _wake(done)

    def tried(self, key: TaskRunKey, label: str, at: float) -> RunOutcome:
        """Return what is known of a task run that does not simply complete, to add to it."""
        with self._lock:
            return self._outcome(key, label, State(name=StateName.PENDING, at=at))

    def entered(self, key: TaskRunKey, label: str, state: State) -> RunOutcome:
        """Take note of a state of a task run that does not simply complete."""
        with self._lock:
            outcome = self._outcome(key, label, state)
            outcome.state = state
            done: Sequence[Future[None]] = ()
            if not state.is_final and key.map_index >= 0:
                self._map(key.node).begin_again(key.map_index)
            elif state.is_final:
                if key.map_index >= 0:
                    self._map(key.node).finish(key.map_index, key.map_index + 1)
                done = self._finished(Chunk(key.node, key.map_index, key.map_index + 1))
        _wake(done)
        return outcome

    def release(self, chunks: Iterable[Chunk]) -> None:
        """Let go of values that nobody can ask for any more."""
        with self._lock:
            ends = self._ends
            for node, start, stop, _ in chunks:
                end = ends[node]
                if not isinstance(end, _Map):
                    ends[node] = _RELEASED
                    continue
                end.spans.drop(start, stop)
                for item in [i for i in end.told if start <= i < stop]:
                    end.told[item].value = None

    def stop(self, error: BaseException) -> None:
        """Let everyone who waits for anything but runs, or comes to, have this error."""
        with self._lock:
            self._stopped = error
            awaited, self._awaited = self._awaited, []
        for future in awaited:
            _give(future, error)

    def end(self, error: BaseException) -> None:
        """Let everyone who still waits, or comes to wait later, have this error."""
        with self._lock:
            self._over = error
            watched, self._watched = self._watched, {}
            awaited, self._awaited = self._awaited, []
        for future in watched.values():
            future.set_exception(error)
        for future in awaited:
            _give(future, error)

    # Reading ------------------------------------------------------------------------------------

    def find(self, key: TaskRunKey) -> ValueRef | RunOutcome | None:
        """Return the value of a run that simply completed, what became of another; None so far."""
        end = self._ends[key.node]
        if isinstance(end, _Map):
            told = end.told.get(key.map_index)
            if told is not None or key.map_index < 0:
                return told
            span = next(end.spans.between(key.map_index, key.map_index + 1), None)
            return None if span is None else ValueRef(span.handle, span.position)
        return end if isinstance(end, ValueRef | RunOutcome) else None

    def value(self, key: TaskRunKey) -> Value | None:
        """Return where the value of a run is; None if there is none, or it was let go."""
        found = self.find(key) if key.node < len(self._ends) else None
        return found.value if isinstance(found, RunOutcome) else found

    def told(self, key: TaskRunKey) -> RunOutcome:
        """Return what became of a run that did not simply complete."""
        found = self.find(key)
        assert isinstance(found, RunOutcome)
        return found

    def items(self, node: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Yield the items of a map from `start` to `stop`, in order; all of them must be final.

        A map that has no items yields its one run, if that tells why.
        """
        found = self._map(node)
        if not found.length and -1 in found.told:
            yield found.told[-1]
            return
        stop = (found.length or 0) if stop is None else stop
        holes = sorted(item for item in found.told if start <= item < stop)
        for hole in holes:
            yield from (span.source() for span in found.spans.between(start, hole))
            yield found.told[hole]
            start = hole + 1
        yield from (span.source() for span in found.spans.between(start, stop))

    def failures(self, node: int) -> list[TaskRunKey]:
        """Return the runs of a map that failed."""
        told = self._map(node).told
        return [TaskRunKey(node, item) for item in sorted(told) if told[item].failed]

    def without_value(self, node: int) -> list[TaskRunKey]:
        """Return the runs of a map that completed, and whose value nobody has any more."""
        told = self._map(node).told
        return [TaskRunKey(node, item) for item in sorted(told) if told[item].has_lost_its_value]

    def length(self, node: int) -> int | None:
        """Return the number of items of a map, or None if that is not known yet."""
        return self._map(node).length

    def is_map(self, node: int) -> bool:
        """Whether a node is a mapped call."""
        return isinstance(self._ends[node], _Map)

    def prefix(self, node: int) -> int:
        """Return how many items of a map, from the first on, are final."""
        return self._map(node).prefix

    def is_whole(self, node: int) -> bool:
        """Whether every run of a node is final."""
        end = self._ends[node]
        if isinstance(end, RunOutcome):
            return end.state.is_final
        return end.is_whole if isinstance(end, _Map) else end is not None

    def is_final(self, key: TaskRunKey) -> bool:
        """Whether a run is final; False for one that is not known yet."""
        if key.node >= len(self._ends):
            return False
        end = self._ends[key.node]
        if isinstance(end, _Map) and key.map_index >= 0:
            return key.map_index < len(end.final) and bool(end.final[key.map_index])
        return self.is_whole(key.node)

    # Waiting ------------------------------------------------------------------------------------

    def watch_run(self, key: TaskRunKey) -> Future[None]:
        """Return a future that is done once the run is final."""
        with self._lock:
            return self._watch(key.node, key.map_index, already=self.is_final(key))

    def watch_whole(self, node: int) -> Future[None]:
        """Return a future that is done once every run of the node is final."""
        with self._lock:
            already = node < len(self._ends) and self.is_whole(node)
            return self._watch(node, _WHOLE, already=already)

    def watch_length(self, node: int) -> Future[None]:
        """Return a future that is done once the number of items is known."""
        with self._lock:
            already = node < len(self._ends) and self._map(node).length is not None
            return self._watch(node, _LENGTH, already=already)

    def until_the_end(self, future: Future[T]) -> Future[T]:
        """Let a future that somebody waits for end with the run, if not before."""
        with self._lock:
            over = self._over or self._stopped
            if over is None:
                if len(self._awaited) > _MANY:
                    self._awaited = [other for other in self._awaited if not other.done()]
                self._awaited.append(future)
        if over is not None:
            _give(future, over)
        return future

    def _watch(self, node: int, what: int, *, already: bool) -> Future[None]:
        if already:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        if self._over is not None:
            raise self._over
        return self._watched.setdefault((node, what), Future())

    def _finished(self, chunk: Chunk) -> list[Future[None]]:
        """Return the futures of those who wait for calls that are final now."""
        if not self._watched:
            return []
        node, start, stop, _ = chunk
        # Whoever waits are few, and the calls of a chunk may be many.
        waited = [w for w in self._watched if w[0] == node and start <= w[1] < stop]
        done = [future for w in waited for future in self._done(*w)]
        if self.is_whole(chunk.node):
            done += self._done(chunk.node, _WHOLE)
        return done

    def _done(self, node: int, what: int) -> list[Future[None]]:
        future = self._watched.pop((node, what), None)
        return [future] if future is not None else []

    def _map(self, node: int) -> _Map:
        end = self._ends[node]
        assert isinstance(end, _Map)
        return end

    def _outcome(self, key: TaskRunKey, label: str, state: State) -> RunOutcome:
        end = self._ends[key.node]
        if isinstance(end, _Map):
            return end.told.setdefault(key.map_index, RunOutcome(label, state))
        if not isinstance(end, RunOutcome):
            end = self._ends[key.node] = RunOutcome(label, state)
        return end


def _give(future: Future[Any], error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)


def _wake(done: Sequence[Future[None]]) -> None:
    for future in done:
        future.set_result(None)
