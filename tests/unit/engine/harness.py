"""A flow run without Ray: an engine fed by hand, and a referee that watches it."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raflow import engine
from raflow.engine import _codes as codes
from raflow.engine._runs import Mapped, Runs
from raflow.model import (
    UNKNOWN_TRUTH,
    BatchReport,
    CallReport,
    Chunk,
    Edge,
    EdgeKind,
    NodeKind,
    Outcome,
    Place,
    Resources,
    ResultInfo,
    RetryPolicy,
    State,
    StateName,
    StateType,
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)

USES = (EdgeKind.DATA, EdgeKind.ITEM)


def edge(source: int, target: int, kind: EdgeKind = EdgeKind.DATA, **more: object) -> Edge:
    return Edge(source=source, target=target, kind=kind, parameter="x", **more)  # type: ignore[arg-type]


def size(batch: engine.SendBatch) -> int:
    return sum(chunk.size for chunk in batch.chunks)


def keys_of(chunk: Chunk) -> list[TaskRunKey]:
    return [chunk.key(offset) for offset in range(chunk.size)]


def calls_of(batch: engine.SendBatch) -> list[tuple[TaskRunKey, int]]:
    """Return the task runs of a batch with their attempts, by position."""
    return [(key, chunk.attempt) for chunk in batch.chunks for key in keys_of(chunk)]


@dataclass
class Told:
    """How the calls of a batch end, by position; the rest complete."""

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    unstarted: tuple[int, ...] = ()
    seconds: float = 1.0
    """How long each call takes."""
    truths: Mapping[int, bool | None] = field(default_factory=dict)
    lengths: Mapping[int, int | None] = field(default_factory=dict)
    retriable: bool = True
    times: Sequence[tuple[float, float]] = ()
    """Start and end of each call; zeros for those that did not start."""


def report(batch: engine.SendBatch, told: Told | None = None, *, at: float = 1.0) -> BatchReport:
    """Make the report of a batch."""
    told = told or Told()
    calls = calls_of(batch)
    ended = array("d", [at]) * len(calls)
    started = array("d", [at - told.seconds]) * len(calls)
    if told.times:
        started = array("d", [start for start, _ in told.times])
        ended = array("d", [end for _, end in told.times])
    for position in told.unstarted:
        started[position] = ended[position] = 0.0
    truths = [told.truths.get(n) for n in range(len(calls))]
    lengths = {n: length for n, length in told.lengths.items() if length is not None}
    return BatchReport(
        batch=batch.batch,
        place=Place(),
        started_at=started,
        ended_at=ended,
        cpu_seconds=started,
        unstarted=told.unstarted,
        told={
            n: CallReport(
                run=calls[n][0],
                attempt=calls[n][1],
                outcome=outcome,
                started_at=started[n],
                ended_at=ended[n],
                retriable=told.retriable,
            )
            for n, outcome in told.outcomes.items()
            if outcome is not Outcome.COMPLETED
        },
        truths=bytes(UNKNOWN_TRUTH if truth is None else truth for truth in truths),
        results={
            n: ResultInfo(type="list", size=1, preview="", length=length)
            for n, length in lengths.items()
            if told.outcomes.get(n, Outcome.COMPLETED) is Outcome.COMPLETED
        },
    )


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

    def event(self, event: engine.Event) -> None:
        """Take note of an event before the engine gets it."""
        match event:
            case engine.CallsRegistered(calls=calls):
                self.calls += calls
                for link in (link for call in calls for link in call.edges):
                    if link.kind in USES:
                        self.uses.setdefault(link.source, []).append(link)
            case engine.FuturesDropped(nodes=nodes):
                self.dropped.update(nodes)
            case engine.CancelAsked() | engine.BodyEnded(raised=True):
                self.stopping = True
            case engine.CallsReturned(batch=batch, positions=positions):
                self._back(batch, positions)
            case engine.BatchFinished(report=told) if told.batch in self.out:
                self._back(told.batch, told.unstarted)
                self._owe(told.batch, None)
            case engine.BatchDied(batch=batch, running=running) if batch in self.out:
                self._owe(batch, running)
            case _:
                pass

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
                assert number == len(self.ended[run]), "attempts are numbered in order"
            case engine.StateEntered(run=run, state=state, attempts=attempts) if state.is_final:
                ended = len(self.ended.get(run, ()))
                assert self.calls[run.node].kind is NodeKind.SUBFLOW or attempts == ended
                self._final(run, state.name)
            case engine.MapExpanded(node=node, length=length):
                assert node not in self.lengths
                self.lengths[node] = length
            case engine.ReleaseValues(chunks=chunks):
                self._released(chunks)
            case engine.RunSettled():
                self.settled.append(command)
            case _:
                pass

    def _completed(self, command: engine.CallsCompleted) -> None:
        calls = calls_of(self.out[command.batch])
        for chunk, position in command.chunks:
            for offset, key in enumerate(keys_of(chunk)):
                assert calls[position + offset] == (key, 1)
                assert key not in self.ended
                self.owed.remove(key)
                self._final(key, StateName.COMPLETED)

    def _final(self, key: TaskRunKey, name: StateName) -> None:
        assert key not in self.finals, "one final state each"
        assert key not in self.live
        self.finals[key] = name

    def _sent(self, batch: engine.SendBatch) -> None:
        assert not self.stopping, "nothing starts after a cancel"
        self.out[batch.batch] = batch
        calls = calls_of(batch)
        assert len({key for key, _ in calls}) == len(calls)
        position_of = {key: position for position, (key, _) in enumerate(calls)}
        for position, (key, attempt) in enumerate(calls):
            assert key not in self.finals
            assert key not in self.live, "at most one attempt at a time"
            assert attempt == len(self.ended.get(key, ())) + 1
            self.live[key] = (batch.batch, attempt)
            call = self.calls[key.node]
            assert call.options.resources == batch.resources
            assert call.options.batch or len(calls) == 1
            if call.options.trigger_rule is TriggerRule.ALL_SUCCESS:
                self._check_sources(call, key, position_of, position)

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
            source = self._source(link, key)
            if source is None:
                no_item = link.source_item is not None and link.source in self.lengths
                assert no_item or self.is_final(link.source)
            elif source not in self.finals:
                assert position_of[source] < position
                assert link.kind in (EdgeKind.DATA, EdgeKind.ORDER)

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
        if TaskRunKey(node) in self.finals:
            return True
        if node not in self.lengths:
            return False
        return all(TaskRunKey(node, item) in self.finals for item in range(self.lengths[node]))

    def _released(self, chunks: tuple[Chunk, ...]) -> None:
        for chunk in chunks:
            assert chunk.attempt == 0
            assert chunk.node in self.dropped
            for key in keys_of(chunk):
                assert key not in self.released
                assert self.finals[key].type is StateType.COMPLETED
                self.released.add(key)
                for link in self.uses.get(chunk.node, ()):
                    self._check_user(link, key)

    def _check_user(self, link: Edge, key: TaskRunKey) -> None:
        if link.kind is EdgeKind.ITEM and key.map_index >= 0:
            user = TaskRunKey(link.target, key.map_index)
            assert user in self.finals or TaskRunKey(link.target) in self.finals
        else:
            assert self.is_final(link.target)

    def check_end(self) -> None:
        """Check what must hold once the run has settled."""
        assert len(self.settled) == 1
        assert not self.live
        for node in range(len(self.calls)):
            assert self.is_final(node)
        for key, name in self.finals.items():
            if key.node in self.dropped and name.type is StateType.COMPLETED:
                assert key in self.released, "what nobody can use is released"


def check(core: engine.Engine, window: int) -> None:
    """Check what must hold after every event."""
    ledger, dispatch = core._ledger, core._dispatch
    assert core.in_flight <= window
    tables: list[Runs] = [ledger.calls, *ledger.maps.values()]
    unfinished = 0
    for runs in tables:
        ends = runs.states.translate(codes.ENDS)
        left = ends.count(codes.OPEN) - runs.states.count(codes.MAPPED)
        assert runs.unfinished == left
        unfinished += left
        if isinstance(runs, Mapped):
            assert runs.failed == ends.count(codes.FAILED)
            assert runs.skipped == ends.count(codes.SKIPPED)
            assert runs.is_final == runs.closed
    assert core.open_calls == unfinished
    assert ledger.open_maps == sum(not m.closed for m in ledger.maps.values())
    _check_places(core, tables)
    assert len(dispatch.flights) == sum(queue.flying for queue in core._kinds.queues)


def _check_places(core: engine.Engine, tables: list[Runs]) -> None:
    """Check that each run is where its state says."""
    queued, out = _queued(core), _out(core)
    for runs in tables:
        for index, code in enumerate(runs.states):
            place = (id(runs), index)
            assert (code in (codes.QUEUED, codes.REQUEUED)) == (place in queued)
            assert bool(codes.IS_OUT[code]) == (place in out)
            if runs is core._ledger.calls and code == codes.PENDING:
                waiting = core._ledger.waiting[index]
                assert not waiting.all_done, "a run whose inputs are there is on its way"


def _queued(core: engine.Engine) -> set[tuple[int, int]]:
    """Return the runs in queues, by table and row."""
    queued: set[tuple[int, int]] = set()
    for queue in core._kinds.queues:
        names: dict[str, int] = {}
        for piece in (*queue.pieces, *queue.freed):
            names[piece.name] = names.get(piece.name, 0) + piece.size
        assert names == queue.names
        parcels = [piece for parcel in queue.parcels for piece in parcel]
        for piece in (*queue.pieces, *queue.freed, *parcels):
            for index in range(piece.start, piece.stop):
                assert (id(piece.runs), index) not in queued, "queued once"
                assert piece.attempt == piece.runs.attempts(index) + 1
                queued.add((id(piece.runs), index))
    return queued


def _out(core: engine.Engine) -> set[tuple[int, int]]:
    """Return the runs in flight, by table and row."""
    out = {(id(core._ledger.calls), node) for node in core._ledger.subflows}
    for flight in core._dispatch.flights.values():
        for position in range(flight.size):
            if position not in flight.returned:
                runs, index = flight.run(position)
                assert (id(runs), index) not in out, "in one batch"
                out.add((id(runs), index))
    return out


@dataclass
class Bench:
    """Feeds an engine by hand and keeps what it commanded.

    As no duration is known and there is room for many, each call travels alone at first.
    """

    window: int = 100
    slots: int = 100
    cancel_grace: float = 5.0
    pace: engine.Pace | None = None
    now: float = 0.0
    sent: dict[TaskRunKey, engine.SendBatch] = field(default_factory=dict)
    log: list[engine.Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = engine.Engine(
            budget=0.05,
            window=self.window,
            slots=lambda _: self.slots,
            pace=self.pace,
            cancel_grace=self.cancel_grace,
            rng=random.Random(1),
        )
        self.referee = Referee()
        self.nodes = 0

    def feed(self, event: engine.Event) -> list[engine.Command]:
        self.referee.event(event)
        commands = self.engine.handle(event)
        for command in commands:
            if isinstance(command, engine.SendBatch):
                for key, _ in calls_of(command):
                    self.sent[key] = command
            self.referee.command(command)
        self.log += commands
        self.referee.handled(event)
        check(self.engine, self.window)
        return commands

    def made(
        self,
        name: str = "t",
        *edges: Edge,
        kind: NodeKind = NodeKind.TASK,
        length: int | None = None,
        runnable: bool = True,
        streamed: bool = False,
        rule: TriggerRule = TriggerRule.ALL_SUCCESS,
        retry: RetryPolicy | None = None,
        batch: bool = True,
        resources: Resources | None = None,
        width: int = 1,
    ) -> engine.CallMade:
        node = self.nodes
        self.nodes += 1
        options = TaskOptions(
            trigger_rule=rule,
            retry=retry or RetryPolicy(),
            batch=batch,
            resources=resources or Resources(),
            concurrency_per_worker=width,
        )
        return engine.CallMade(
            at=self.now,
            node=node,
            kind=kind,
            name=name,
            key=f"{name}-{node}",
            options=options,
            edges=tuple(edges),
            length=length,
            runnable=runnable,
            streamed=streamed,
        )

    def call(self, name: str = "t", *edges: Edge, **more: object) -> int:
        made = self.made(name, *edges, **more)  # type: ignore[arg-type]
        self.register(made)
        return made.node

    def register(self, *calls: engine.CallMade) -> list[engine.Command]:
        return self.feed(engine.CallsRegistered(at=self.now, calls=calls))

    def finish(self, batch: engine.SendBatch, told: Told | None = None) -> list[engine.Command]:
        finished = report(batch, told, at=self.now)
        return self.feed(engine.BatchFinished(at=self.now, report=finished))

    def end(
        self,
        node: int,
        outcome: Outcome = Outcome.COMPLETED,
        *,
        item: int = -1,
        truth: bool | None = None,
        length: int | None = None,
        retriable: bool = True,
    ) -> list[engine.Command]:
        """End a call that travels alone."""
        batch = self.sent[TaskRunKey(node, item)]
        assert size(batch) == 1
        told = Told({0: outcome}, truths={0: truth}, lengths={0: length}, retriable=retriable)
        return self.finish(batch, told)

    def die(
        self,
        node: int,
        outcome: Outcome = Outcome.CRASHED,
        *,
        item: int = -1,
        running: tuple[int, ...] | None = None,
    ) -> list[engine.Command]:
        batch = self.sent[TaskRunKey(node, item)].batch
        event = engine.BatchDied(
            at=self.now, batch=batch, outcome=outcome, message="gone", running=running
        )
        return self.feed(event)

    def body_ends(self, *, raised: bool = False) -> list[engine.Command]:
        return self.feed(engine.BodyEnded(at=self.now, raised=raised))

    def name(self, node: int, item: int = -1) -> StateName:
        return self.engine.state(TaskRunKey(node, item))[0]

    def state(self, node: int, item: int = -1) -> State:
        """Return the last state that was told of a run."""
        found = [
            command.state
            for command in self.log
            if isinstance(command, engine.StateEntered) and command.run == (node, item)
        ]
        assert found[-1].name is self.name(node, item)
        return found[-1]

    def batches(self) -> list[engine.SendBatch]:
        return [command for command in self.log if isinstance(command, engine.SendBatch)]

    def settled(self) -> engine.RunSettled | None:
        assert len(self.referee.settled) <= 1
        return self.referee.settled[0] if self.referee.settled else None
