"""A flow run without Ray: an engine fed by hand, and a referee that watches it."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raflow import engine
from raflow.engine import _codes as codes
from raflow.engine._runs import Mapped, Runs
from raflow.model import (
    UNKNOWN_TRUTH,
    BatchReport,
    CallReport,
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
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.referee import Referee, calls_of, keys_of

__all__ = ["Bench", "Referee", "Told", "calls_of", "check", "edge", "keys_of", "report", "size"]


def edge(source: int, target: int, kind: EdgeKind = EdgeKind.DATA, **more: object) -> Edge:
    return Edge(source=source, target=target, kind=kind, parameter="x", **more)  # type: ignore[arg-type]


def size(batch: engine.SendBatch) -> int:
    return sum(chunk.size for chunk in batch.chunks)


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
    lost_inputs: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    peak_memory: int = 0


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
                lost_inputs=told.lost_inputs.get(n, ()),
                peak_memory=told.peak_memory,
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
    limits: dict[str, int] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)
    """Calls of which nobody knows any more how they were made."""
    fuses: bool = True

    def __post_init__(self) -> None:
        self.engine = engine.Engine(
            budget=0.05,
            window=self.window,
            slots=lambda _: self.slots,
            pace=self.pace,
            cancel_grace=self.cancel_grace,
            rng=random.Random(1),
            limit_slots=lambda name: self.limits[name],
            recall=self.recall,
            fuses=self.fuses,
        )
        self.referee = Referee()
        self.nodes = 0

    def recall(self, node: int) -> engine.CallMade | None:
        known = node not in self.forgotten
        return self.referee.calls[node]._replace(answers=()) if known else None

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
        answers: tuple[engine.Answer, ...] = (),
        teardown_of: tuple[int, ...] = (),
        **more: Any,
    ) -> engine.CallMade:
        node = self.nodes
        self.nodes += 1
        options = TaskOptions(
            trigger_rule=rule,
            retry=retry or RetryPolicy(),
            batch=batch,
            resources=resources or Resources(),
            concurrency_per_worker=width,
            **more,
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
            answers=answers,
            teardown_of=teardown_of,
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
