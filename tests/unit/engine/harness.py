"""A flow run without Ray: an engine, a virtual clock, and calls that end as a script says."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raflow import engine
from raflow.model import (
    BatchReport,
    CallReport,
    Edge,
    NodeKind,
    Outcome,
    ResultInfo,
    RetryPolicy,
    State,
    StateName,
    StateType,
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)


def report(
    run: TaskRunKey,
    attempt: int = 1,
    outcome: Outcome = Outcome.COMPLETED,
    *,
    at: float = 1.0,
    truth: bool | None = None,
    length: int | None = None,
    retriable: bool = True,
) -> CallReport:
    result = None
    if outcome is Outcome.COMPLETED:
        result = ResultInfo(type="int", size=1, preview="1", truth=truth, length=length)
    return CallReport(
        run=run,
        attempt=attempt,
        outcome=outcome,
        started_at=at,
        ended_at=at,
        result=result,
        retriable=retriable,
    )


@dataclass
class Bench:
    """Feeds an engine by hand and keeps what it commanded."""

    window: int = 100
    cancel_grace: float = 5.0
    now: float = 0.0
    sent: dict[TaskRunKey, engine.SendBatch] = field(default_factory=dict)
    log: list[engine.Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = engine.Engine(
            window=self.window, cancel_grace=self.cancel_grace, rng=random.Random(1)
        )

    def feed(self, event: engine.Event) -> list[engine.Command]:
        commands = self.engine.handle(event)
        for command in commands:
            if isinstance(command, engine.SendBatch):
                for run, _ in command.calls:
                    self.sent[run] = command
        self.log += commands
        check(self.engine, self.window)
        return commands

    def call(
        self,
        name: str = "t",
        *edges: Edge,
        kind: NodeKind = NodeKind.TASK,
        length: int | None = None,
        runnable: bool = True,
        rule: TriggerRule = TriggerRule.ALL_SUCCESS,
        retry: RetryPolicy | None = None,
    ) -> int:
        node = len(self.engine.nodes)
        options = TaskOptions(trigger_rule=rule, retry=retry or RetryPolicy())
        self.feed(
            engine.CallRegistered(
                at=self.now,
                node=node,
                kind=kind,
                name=name,
                key=f"{name}-{node}",
                options=options,
                edges=tuple(edges),
                length=length,
                runnable=runnable,
            )
        )
        return node

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
        run = TaskRunKey(node, item)
        batch = self.sent[run]
        call = report(
            run,
            batch.calls[0].attempt,
            outcome,
            at=self.now,
            truth=truth,
            length=length,
            retriable=retriable,
        )
        told = BatchReport(batch=batch.batch, calls=(call,))
        return self.feed(engine.BatchFinished(at=self.now, report=told))

    def die(self, node: int, outcome: Outcome, *, item: int = -1) -> list[engine.Command]:
        batch = self.sent[TaskRunKey(node, item)].batch
        return self.feed(
            engine.BatchDied(at=self.now, batch=batch, outcome=outcome, message="gone")
        )

    def body_ends(self, *, raised: bool = False) -> list[engine.Command]:
        return self.feed(engine.BodyEnded(at=self.now, raised=raised))

    def state(self, node: int, item: int = -1) -> State:
        return self.engine.run(TaskRunKey(node, item)).state

    def name(self, node: int, item: int = -1) -> StateName:
        return self.state(node, item).name

    def settled(self) -> engine.RunSettled | None:
        found = [c for c in self.log if isinstance(c, engine.RunSettled)]
        assert len(found) <= 1
        return found[0] if found else None


def check(core: engine.Engine, window: int) -> None:
    """Check what must hold after every event."""
    assert core.in_flight <= window
    for node in core.nodes:
        unfinished = sum(not run.is_final for run in node.runs)
        assert node.unfinished == unfinished
        for run in node.runs:
            assert run.upstream.done <= run.upstream.total
            assert run.attempts <= 1 + run.failures + run.crashes
            if run.is_final:
                assert not run.queued
                assert run.batch == -1
            if run.queued:
                assert run.batch == -1
            if run.state.name is StateName.PENDING and run.upstream.all_done:
                assert run.queued, "a run whose inputs are there is on its way"


@dataclass
class Simulation:
    """Plays a whole flow run against random durations and failures, on a virtual clock."""

    seed: int
    window: int = 50
    failure_rate: float = 0.1
    crash_rate: float = 0.05
    checked: bool = False

    def run(self, calls: Iterable[engine.CallRegistered]) -> engine.Engine:
        self.rng = random.Random(self.seed)
        self.core = engine.Engine(window=self.window, rng=random.Random(self.seed))
        self.queue: list[tuple[float, int, Callable[[float], engine.Event]]] = []
        self.order = 0
        self.started: Counter[tuple[TaskRunKey, int]] = Counter()
        self.settled: list[engine.RunSettled] = []
        now = 0.0
        for call in calls:
            self._take(self.core.handle(call), now)
        self._take(self.core.handle(engine.BodyEnded(at=now)), now)
        while self.queue:
            now, _, make = heapq.heappop(self.queue)
            self._take(self.core.handle(make(now)), now)
            if self.checked:
                check(self.core, self.window)
        return self.core

    def _take(self, commands: list[engine.Command], now: float) -> None:
        for command in commands:
            match command:
                case engine.SendBatch():
                    self._play(command, now)
                case engine.SetRetryTimer(run=run, due=due):
                    self._later(due, _retry_due(run))
                case engine.RunSettled():
                    self.settled.append(command)
                case _:
                    pass

    def _play(self, batch: engine.SendBatch, now: float) -> None:
        (call,) = batch.calls
        self.started[call] += 1
        done = now + self.rng.lognormvariate(-2, 2)
        fate = self.rng.random()
        if fate < self.crash_rate:
            self._later(
                done,
                lambda at: engine.BatchDied(
                    at=at, batch=batch.batch, outcome=Outcome.CRASHED, message="killed"
                ),
            )
            return
        failed = fate < self.crash_rate + self.failure_rate
        outcome = Outcome.FAILED if failed else Outcome.COMPLETED
        self._later(
            done,
            lambda at: engine.BatchFinished(
                at=at,
                report=BatchReport(
                    batch=batch.batch,
                    calls=(report(call.run, call.attempt, outcome, at=at, length=3, truth=True),),
                ),
            ),
        )

    def _later(self, at: float, make: Callable[[float], engine.Event]) -> None:
        self.order += 1
        heapq.heappush(self.queue, (at, self.order, make))


def _retry_due(run: TaskRunKey) -> Callable[[float], engine.Event]:
    return lambda at: engine.RetryDue(at=at, run=run)


def final_types(core: engine.Engine) -> Counter[StateType]:
    return Counter(run.state.type for node in core.nodes for run in node.runs)
