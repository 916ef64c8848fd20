"""Values of calls that are over: taken from the record, found again, or to be computed again."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from raflow import engine, errors
from raflow.model import BatchReport, Chunk, ResultInfo, State, StateName, TaskRunKey
from raflow.runtime.calls import CallEntry, call_made
from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._memory import Memory
from raflow.runtime.driver._messages import ValuesRead, ValueWanted
from raflow.runtime.recall import Known, Recall


class Values:
    """Knows which values of a run are there; on the driver's thread."""

    def __init__(self, driver: Driven, memory: Memory) -> None:
        """Begin before the first call."""
        self._driver = driver
        self._memory = memory
        self._spare: dict[int, CallEntry] = {}
        """Calls that are over, and whose values may have to be computed again."""
        self._wanted: dict[TaskRunKey, list[Future[None]]] = defaultdict(list)
        self._found: set[TaskRunKey] = set()
        """Runs whose value was taken from the record: if it is wanted again, it may be damaged."""

    def close(self) -> None:
        """Let nobody wait any more."""
        for waiting in self._wanted.values():
            for there in waiting:
                there.set_result(None)
        self._wanted.clear()

    # From the record ------------------------------------------------------------------------------

    def recalled(self, calls: Sequence[engine.CallMade]) -> Sequence[engine.CallMade]:
        """Give calls what is known of them from before."""
        recall = self._memory.recall
        if recall is None:
            return calls
        found = [recall.known(call.node) for call in calls]
        if not isinstance(recall, Recall):
            taken = [
                (call.node, piece)
                for call, known in zip(calls, found, strict=True)
                if recall.takes(call.node)
                for piece, _ in known.pieces
            ]
            self._driver.history.task_runs.reused(taken, recall.origin, self._driver.clock())
        return list(map(self._recalled, calls, found))

    def _recalled(self, call: engine.CallMade, known: Known) -> engine.CallMade:
        driver, (answers, pieces) = self._driver, known
        if not answers:
            return call
        entry = driver.entry(call.node)
        there: set[int] = set()
        for piece, has_value in pieces:
            chunk = Chunk(call.node, piece.start, piece.stop)
            self._spare[call.node] = entry
            if has_value:
                driver.outcomes.completed([(chunk, piece.position)], piece.values)
            else:
                name = StateName.COMPLETED if piece.attempts else StateName.CACHED
                state = State(name=name, at=driver.clock())
                for run in chunk.runs():
                    label = entry.label(run.map_index)
                    value = self._memory.values.pop(run, None)
                    if value is not None:
                        driver.outcomes.tried(run, label, state.at).value = value
                        there.add(run.map_index)
                    driver.outcomes.entered(run, label, state)
            driver.runs_over([chunk])
        if there:
            answers = tuple(a._replace(has_value=True) if a.start in there else a for a in answers)
        return call._replace(answers=answers)

    def call_again(self, node: int) -> engine.CallMade | None:
        """Bring back a call that is over; None if nothing is left of it."""
        entry = self._spare.get(node)
        if entry is None:
            return None
        self._driver.entries[node] = entry
        return call_made(node, entry)

    def keeps(self, node: int) -> bool:
        """Whether a call may have to run again, although it is over."""
        return node in self._spare

    # Of calls that end now ------------------------------------------------------------------------

    def completed(self, command: engine.CallsCompleted, report: BatchReport) -> None:
        """Look after calls that have completed, before others learn of that."""
        unkept = [p for p, known in report.results.items() if not known.serializer]
        if unkept or report.told:
            for chunk, position in command.chunks:
                if any(position <= p < position + chunk.size for p in (*unkept, *report.told)):
                    self._spare[chunk.node] = self._driver.entry(chunk.node)

    def tried(self, run: TaskRunKey, entry: CallEntry, result: ResultInfo | None) -> None:
        """Look after a call that has completed otherwise than at once."""
        if result is None or not result.serializer:
            self._spare[run.node] = entry

    def ended(self, run: TaskRunKey) -> None:
        """Tell those who want the value of a task run that it is final."""
        for there in self._wanted.pop(run, ()):
            there.set_result(None)

    # Wanted again ---------------------------------------------------------------------------------

    def _value_wanted(self, message: ValueWanted) -> None:
        self._wanted[message.run].append(message.there)
        self._driver.feed(engine.ValueAsked(at=self._driver.clock(), run=message.run))

    def _value_gone(self, command: engine.ValueGone) -> None:
        label = self._driver.outcomes.told(command.run).label
        for there in self._wanted.pop(command.run, ()):
            there.set_exception(errors.TaskCrashedError(f"{label!r}: {command.message}."))

    def _find_values(self, command: engine.FindValues) -> None:
        driver = self._driver

        doubtful = [chunk for chunk in command.chunks if not self._found.isdisjoint(chunk.runs())]
        self._found.update(run for chunk in command.chunks for run in chunk.runs())

        def tell(recall: Recall | None) -> None:
            damaged = [chunk for chunk in doubtful if recall and not self._is_whole(chunk, recall)]
            driver.post(ValuesRead(command.chunks, recall, frozenset(damaged)))

        def read(found: Future[Recall]) -> None:
            recall = None if found.exception() else found.result()
            if doubtful:  # the thread that records must not wait for storage
                threading.Thread(target=tell, args=[recall], name="raflow-values").start()
            else:
                tell(recall)

        self._memory.look_back().add_done_callback(read)

    def _is_whole(self, chunk: Chunk, recall: Recall) -> bool:
        """Tell whether the values of these runs can be read."""
        try:
            for piece in recall.values(chunk) or ():
                stop = piece.position + piece.stop - piece.start
                for position in range(piece.position, stop):
                    self._driver.session.fetch(piece.values.source(position))
        except errors.BackendError:
            return False
        return True

    def _values_read(self, message: ValuesRead) -> None:
        found: list[Chunk] = []
        lost: list[Chunk] = []
        for chunk in message.chunks:
            usable = message.recall if chunk not in message.damaged else None
            pieces = usable.values(chunk) if usable else None
            (lost if pieces is None else found).append(chunk)
            for piece in pieces or ():
                part = Chunk(chunk.node, piece.start, piece.stop)
                self._driver.outcomes.completed([(part, piece.position)], piece.values)
        at = self._driver.clock()
        if found:
            self._driver.feed(engine.ValuesFound(at=at, chunks=tuple(found)))
            for chunk in found:
                for run in chunk.runs():
                    for there in self._wanted.pop(run, ()):
                        there.set_result(None)
        if lost:
            self._driver.feed(engine.ValuesLost(at=at, chunks=tuple(lost)))

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {ValueWanted: self._value_wanted, ValuesRead: self._values_read}

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {engine.FindValues: self._find_values, engine.ValueGone: self._value_gone}
