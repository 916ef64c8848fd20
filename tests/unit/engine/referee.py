"""A referee that watches what goes into an engine and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raflow import engine
from raflow.model import (
    Chunk,
    Edge,
    EdgeKind,
    NodeKind,
    Outcome,
    StateName,
    StateType,
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)

USES = (EdgeKind.DATA, EdgeKind.ITEM)


def keys_of(chunk: Chunk) -> list[TaskRunKey]:
    return [chunk.key(offset) for offset in range(chunk.size)]


def calls_of(batch: engine.SendBatch) -> list[tuple[TaskRunKey, int]]:
    """Return the task runs of a batch with their attempts, by position."""
    return [(key, chunk.attempt) for chunk in batch.chunks for key in keys_of(chunk)]


class Referee:
    """Watches what goes into an engine and what comes out, and objects to what must not be."""

    def __init__(self) -> None:
        self.calls: list[engine.CallMade] = []
        self.uses: dict[int, list[Edge]] = {}
        """By node: the edges of those who take its value."""
        self.lengths: dict[int, int] = {}
        self.out: dict[int, engine.SendBatch] = {}
        self.live: dict[TaskRunKey, tuple[int, int]] = {}
        """By run in flight: its batch and attempt."""
        self.ended: dict[TaskRunKey, list[Outcome]] = {}
        """By run: recorded attempts."""
        self.finals: dict[TaskRunKey, StateName] = {}
        self.dropped: set[int] = set()
        self.released: set[TaskRunKey] = set()
        self.settled: list[engine.RunSettled] = []
        self.owed: set[TaskRunKey] = set()
        """Runs whose attempt is over, and not recorded yet."""
        self.stopping = False
        self.paused = False
        self.answers: dict[TaskRunKey, engine.Answer] = {}
        """Runs that were completed before, and have not run again since."""
        self.begun: dict[TaskRunKey, int] = {}
        """Attempts of earlier processes, and those told by `CallsCompleted`."""
        self.valueless: set[TaskRunKey] = set()
        self.asked: set[TaskRunKey] = set()
        self.holders: set[TaskRunKey] = set()
        self.looked: set[TaskRunKey] = set()
        """Runs that are looked for in the cache."""
        self.missed: set[TaskRunKey] = set()
        self.reopened: list[TaskRunKey] = []
        self.gone: list[TaskRunKey] = []

    def event(self, event: engine.Event) -> None:
        """Take note of an event before the engine gets it."""
        match event:
            case engine.CallsRegistered(calls=calls):
                self.calls += calls
                for call in calls:
                    self._recalled(call)
                for link in (link for call in calls for link in call.edges):
                    if link.kind in USES:
                        self.uses.setdefault(link.source, []).append(link)
            case engine.FuturesDropped(nodes=nodes):
                self.dropped.update(nodes)
            case engine.CancelAsked() | engine.BodyEnded(raised=True):
                self.stopping = True
                self.paused = self.paused and not isinstance(event, engine.CancelAsked)
            case engine.PauseAsked() | engine.UnpauseAsked():
                self.paused = isinstance(event, engine.PauseAsked)
            case _:
                self._worker_event(event)
                self._outside_event(event)

    def _worker_event(self, event: engine.Event) -> None:
        match event:
            case engine.CallsReturned(batch=batch, positions=positions):
                self._back(batch, positions)
            case engine.BatchFinished(report=told) if told.batch in self.out:
                self._back(told.batch, told.unstarted)
                self._back(told.batch, [n for n, call in told.told.items() if call.lost_inputs])
                self._owe(told.batch, None)
            case engine.BatchDied(batch=batch, running=running) if batch in self.out:
                self._owe(batch, running)
            case _:
                pass

    def _outside_event(self, event: engine.Event) -> None:
        match event:
            case engine.ValuesLost(chunks=chunks):
                self.valueless.update(key for chunk in chunks for key in keys_of(chunk))
            case engine.ValuesFound(chunks=chunks):
                found = {key for chunk in chunks for key in keys_of(chunk)}
                self.valueless -= found
                self.released -= found
            case engine.SlotsGranted(run=run) if run in self.asked:
                self.asked.remove(run)
                self.holders.add(run)
            case engine.SlotsRefused(run=run):
                self.asked.discard(run)
            case engine.CacheAnswered(run=run, verdict=verdict):
                if verdict is not engine.CacheVerdict.BUSY and run in self.looked:
                    self.looked.remove(run)
                    self.missed.add(run)
            case _:
                pass

    def _recalled(self, call: engine.CallMade) -> None:
        for answer in call.answers:
            for item in range(answer.start, answer.stop):
                key = TaskRunKey(call.node, item)
                self.begun[key] = answer.attempts
                if answer.completed:
                    self.answers[key] = answer
                    if not answer.has_value:
                        self.valueless.add(key)

    def over(self, key: TaskRunKey) -> bool:
        """Tell whether a run is final."""
        return key in self.finals or key in self.answers

    def attempts(self, key: TaskRunKey) -> int:
        """Return how many attempts are on record."""
        return self.begun.get(key, 0) + len(self.ended.get(key, ()))

    def _owe(self, batch: int, running: Sequence[int] | None) -> None:
        """Note whose attempt must be recorded now; the others of the batch never began."""
        calls = calls_of(self.out[batch])
        last = len(calls) if running is None else max(running, default=-1)
        for position, (key, attempt) in enumerate(calls):
            if self.live.get(key) == (batch, attempt):
                del self.live[key]
                if position <= last:
                    self.owed.add(key)

    def handled(self, event: engine.Event) -> None:
        """Take note that all commands of an event have come."""
        assert not self.owed, "what has run is recorded"
        if isinstance(event, engine.BatchFinished):
            self.out.pop(event.report.batch, None)
        elif isinstance(event, engine.BatchDied):
            self.out.pop(event.batch, None)

    def _back(self, batch: int, positions: Sequence[int]) -> None:
        calls = calls_of(self.out[batch])
        for position in positions:
            key, attempt = calls[position]
            if self.live.get(key) == (batch, attempt):
                del self.live[key]

    def command(self, command: engine.Command) -> None:
        """Check a command."""
        match command:
            case engine.SendBatch():
                self._sent(command)
            case engine.CallsCompleted():
                self._completed(command)
            case engine.AttemptEnded(run=run, number=number, outcome=outcome):
                self.ended.setdefault(run, []).append(outcome)
                self.owed.discard(run)
                assert number == self.attempts(run), "attempts are numbered in order"
            case engine.StateEntered():
                self._entered(command)
            case engine.MapExpanded(node=node, length=length):
                assert node not in self.lengths
                self.lengths[node] = length
            case engine.ReleaseValues(chunks=chunks):
                self._released(chunks)
            case engine.RunSettled():
                self.settled.append(command)
            case _:
                self._outside_command(command)

    def _entered(self, command: engine.StateEntered) -> None:
        run, state, attempts = command
        if state.is_final:
            known = self.attempts(run)
            assert self.calls[run.node].kind is NodeKind.SUBFLOW or attempts == known
            self._final(run, state.name)
            if state.type is StateType.COMPLETED and "stopped" not in state.message:
                self.valueless.discard(run)
        elif "lost" in state.message:
            self._reopened(run)

    def _reopened(self, run: TaskRunKey) -> None:
        assert self.over(run)
        assert not self.has_value(run), "nothing is computed again without need"
        assert not self.calls[run.node].options.at_most_once
        self.finals.pop(run, None)
        self.answers.pop(run, None)
        self.released.discard(run)
        self.missed.discard(run)
        self.valueless.add(run)
        self.reopened.append(run)

    def _outside_command(self, command: engine.Command) -> None:
        match command:
            case engine.AskSlots(run=run):
                assert not self.paused
                assert run not in self.asked | self.holders
                self.asked.add(run)
            case engine.ReleaseSlots(run=run):
                assert run in self.asked | self.holders
                self.asked.discard(run)
                self.holders.discard(run)
            case engine.AskCache(chunk=chunk):
                assert self.looked.isdisjoint(keys_of(chunk))
                self.looked.update(keys_of(chunk))
            case engine.StartSubflow(run=run):
                assert not self.paused
                assert not self.stops(run)
            case engine.ValueGone(run=run):
                self.gone.append(run)
            case engine.AtRest():
                assert self.paused
                assert not self.out_now()
            case _:
                pass

    def stops(self, key: TaskRunKey) -> bool:
        """Tell whether a run may not start any more."""
        return self.stopping and not self.calls[key.node].options.teardown

    def out_now(self) -> set[int]:
        """Return the batches in flight."""
        return {batch for batch, _ in self.live.values()}

    def has_value(self, key: TaskRunKey) -> bool:
        """Tell whether the value of a completed run can be had."""
        return key not in self.valueless and key not in self.released

    def _completed(self, command: engine.CallsCompleted) -> None:
        calls = calls_of(self.out[command.batch])
        for chunk, position in command.chunks:
            for offset, key in enumerate(keys_of(chunk)):
                assert calls[position + offset] == (key, 1)
                assert key not in self.ended
                self.owed.remove(key)
                self.valueless.discard(key)
                self.begun[key] = 1
                self._final(key, StateName.COMPLETED)

    def _final(self, key: TaskRunKey, name: StateName) -> None:
        assert not self.over(key), "one final state each"
        assert key not in self.live
        self.finals[key] = name

    def _sent(self, batch: engine.SendBatch) -> None:
        assert not self.paused
        self.out[batch.batch] = batch
        calls = calls_of(batch)
        assert len({key for key, _ in calls}) == len(calls)
        position_of = {key: position for position, (key, _) in enumerate(calls)}
        for position, (key, attempt) in enumerate(calls):
            assert not self.over(key)
            assert not self.stops(key), "nothing starts after a cancel"
            assert key not in self.live, "at most one attempt at a time"
            assert attempt == self.attempts(key) + 1
            self.live[key] = (batch.batch, attempt)
            call = self.calls[key.node]
            self._check_options(batch, call.options, key, len(calls))
            if call.options.teardown:
                continue
            if call.options.trigger_rule is TriggerRule.ALL_SUCCESS:
                self._check_sources(call, key, position_of, position)

    def _check_options(
        self, batch: engine.SendBatch, options: TaskOptions, key: TaskRunKey, size: int
    ) -> None:
        """Check that a call is sent as its options say."""
        assert options.resources == batch.resources or options.memory_growth > 1
        alone = options.limits or options.at_most_once or options.teardown or not options.batch
        assert not alone or size == 1
        assert options.cache is None or key in self.missed
        assert not options.limits or key in self.holders, "slots are held before it is sent"
        assert batch.record_first == options.at_most_once
        assert not options.at_most_once or not self.ended.get(key), "at most once"

    def _check_sources(
        self,
        call: engine.CallMade,
        key: TaskRunKey,
        position_of: Mapping[TaskRunKey, int],
        position: int,
    ) -> None:
        """Check that each source is final, or stands before its user in the batch."""
        for link in call.edges:
            if link.target_item not in (None, key.map_index):
                continue
            if link.kind not in USES and key in self.reopened:
                continue
            # Who only waited for it does not mind if it runs again.
            source = self._source(link, key)
            if source is None:
                no_item = link.source_item is not None and link.source in self.lengths
                again = any(run.node == link.source for run in self.reopened)
                careless = again and link.kind not in USES
                assert no_item or careless or self.is_final(link.source)
            elif not self.over(source) and (link.kind in USES or source not in self.reopened):
                assert position_of[source] < position
                assert link.kind in (EdgeKind.DATA, EdgeKind.ORDER)
            elif link.kind in USES and self._completed_once(source):
                assert self.has_value(source), "its input can be had"

    def _completed_once(self, key: TaskRunKey) -> bool:
        return key in self.answers or self.finals[key].type is StateType.COMPLETED

    def _source(self, link: Edge, key: TaskRunKey) -> TaskRunKey | None:
        """Return the run that an edge comes from; None for all items of a map."""
        if self.calls[link.source].kind is not NodeKind.MAP:
            return TaskRunKey(link.source)
        item = key.map_index if link.kind is EdgeKind.ITEM else link.source_item
        given_up = TaskRunKey(link.source) in self.finals
        if item is None or given_up or item >= self.lengths.get(link.source, item + 1):
            return None
        return TaskRunKey(link.source, item)

    def is_final(self, node: int) -> bool:
        """Tell whether every run of a node is final."""
        if self.over(TaskRunKey(node)):
            return True
        if node not in self.lengths:
            return False
        return all(self.over(TaskRunKey(node, item)) for item in range(self.lengths[node]))

    def _released(self, chunks: tuple[Chunk, ...]) -> None:
        for chunk in chunks:
            assert chunk.attempt == 0
            assert chunk.node in self.dropped
            for key in keys_of(chunk):
                assert key not in self.released
                assert self._completed_once(key)
                self.released.add(key)
                for link in self.uses.get(chunk.node, ()):
                    self._check_user(link, key)

    def _check_user(self, link: Edge, key: TaskRunKey) -> None:
        if link.kind is EdgeKind.ITEM and key.map_index >= 0:
            user = TaskRunKey(link.target, key.map_index)
            assert self.over(user) or TaskRunKey(link.target) in self.finals
        else:
            assert self.is_final(link.target)

    def check_end(self) -> None:
        """Check what must hold once the run has settled."""
        assert len(self.settled) == 1
        assert not self.live
        assert not self.asked | self.holders, "no slots are left over"
        for node in range(len(self.calls)):
            assert self.is_final(node)
        for key, name in self.finals.items():
            if key.node in self.dropped and name.type is StateType.COMPLETED:
                assert key in self.released, "what nobody can use is released"
