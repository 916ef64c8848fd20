"""Workers on a virtual clock: they run batches within their budget, fail, and die."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raflow import engine
from raflow.model import (
    CacheOptions,
    Chunk,
    Edge,
    EdgeKind,
    NodeKind,
    Outcome,
    Resources,
    RetryPolicy,
    State,
    StateName,
    StateType,
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.harness import Referee, Told, calls_of, check, keys_of, report

EXACT = 1e-5
"""Overhead of a call, by which a worker may notice late that its time is up."""


@dataclass
class Simulation:
    """Plays a whole flow run against random durations, failures and deaths."""

    seed: int
    window: int = 50
    slots: int = 4
    budget: float = 0.05
    failure_rate: float = 0.1
    crash_rate: float = 0.05
    latency: float = 0.0
    """Seconds that a message needs."""
    overhead: float = 8e-6
    """Seconds that a worker needs for a call besides the call's own time."""
    seconds: Callable[[TaskRunKey, random.Random], float] = lambda _, rng: rng.lognormvariate(-6, 2)
    loss_rate: float = 0.0
    """How often, at the end of a batch, some values are lost."""
    steering_rate: float = 0.0
    """How often, at the end of a batch, the run is paused for a while, or a call is cancelled."""
    checked: bool = False
    watched: bool = True
    """Whether the referee looks on."""
    now: float = 1000.0
    held: list[float] = field(default_factory=list)
    """For each call that was handed back: how long a worker had kept it."""
    ran: dict[TaskRunKey, float] = field(default_factory=dict)
    """When each call ended last."""
    batches: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.core = engine.Engine(
            window=self.window,
            slots=lambda _: self.slots,
            budget=self.budget,
            rng=random.Random(self.seed),
            limit_slots=lambda _: _DB_SLOTS,
            recall=lambda node: self.calls[node]._replace(answers=()),
        )
        self.referee = Referee()
        self.queue: list[tuple[float, int, Callable[[float], engine.Event]]] = []
        self.numbers = itertools.count()
        self.waiting: deque[engine.SendBatch] = deque()
        self.busy: set[int] = set()
        self.calls: list[engine.CallMade] = []
        self.completed: set[TaskRunKey] = set()
        self.story: list[engine.Command] = []
        self.held_slots: set[TaskRunKey] = set()
        self.line: deque[TaskRunKey] = deque()
        self.most_slots = 0

    def at(self, at: float, event: Callable[[float], engine.Event]) -> None:
        """Have an event happen at a time."""
        heapq.heappush(self.queue, (at, next(self.numbers), event))

    def register(self, at: float, calls: list[engine.CallMade]) -> None:
        """Have calls made at a time."""
        self.at(at, _registered(tuple(calls)))

    def run(self, calls: Iterable[engine.CallMade], *, drop: bool = False) -> engine.Engine:
        """Make calls, one after the other, end the body, and play to the end."""
        self.calls = list(calls)
        at = self.now
        for group in _groups(self.calls, self.rng):
            at += self.rng.random() * 0.001
            self.at(at, _registered(group))
            for call in group:
                if drop and self.rng.random() < 0.7:
                    self.at(at + self.rng.random(), _dropped(call.node))
                if call.streamed:
                    self._stream(call.node, at)
        self.at(at + 0.001, lambda now: engine.BodyEnded(at=now))
        self.play()
        return self.core

    def _stream(self, node: int, at: float) -> None:
        length = 0
        for _ in range(self.rng.randrange(4)):
            at += self.rng.random() * 0.1
            length += self.rng.randrange(20)
            self.at(at, _arrived(node, length, complete=False, error=""))
        error = "the iterator raised" if self.rng.random() < 0.3 else ""
        self.at(at + 0.1, _arrived(node, length + bool(error), complete=True, error=error))

    def play(self) -> None:
        """Let time pass until nothing happens any more."""
        while self.queue:
            self.now, _, make = heapq.heappop(self.queue)
            self.feed(make(self.now))

    def feed(self, event: engine.Event) -> None:
        """Give an event to the engine, and carry out what it commands."""
        if isinstance(event, engine.BatchFinished):
            self._is_free(event.report.batch)
        elif isinstance(event, engine.BatchDied):
            self._is_free(event.batch)
        if self.watched:
            self.referee.event(event)
        commands = self.core.handle(event)
        if self.watched:
            for command in commands:
                self.referee.command(command)
            self.referee.handled(event)
            self.story += commands
        for command in commands:
            self._take(command)
            self._serve(command)
        if isinstance(event, engine.BatchFinished):
            self._disturb()
        if self.checked:
            check(self.core, self.window)

    def _take(self, command: engine.Command) -> None:
        match command:
            case engine.SendBatch():
                self.batches += 1
                self.waiting.append(command)
                self._start()
            case engine.SetRetryTimer(run=run, due=due):
                self.at(due, lambda at: engine.RetryDue(at=at, run=run))
            case engine.SetSendTimer(due=due):
                self.at(max(due, self.now), lambda at: engine.SendDue(at=at))
            case engine.StartSubflow(run=run):
                state = State(name=StateName.COMPLETED, at=self.now)
                self.at(
                    self.now + self.rng.random(),
                    lambda at: engine.SubflowEnded(at=at, run=run, state=state, length=3),
                )
            case _:
                pass

    def _serve(self, command: engine.Command) -> None:
        """Hand out slots, look into the cache, and look for values."""
        match command:
            case engine.AskSlots(run=run):
                self.line.append(run)
                reason = f"limit 'db' {_DB_SLOTS}/{_DB_SLOTS}"
                self._hand_out()
                if run in self.line:
                    self.at(
                        self.now,
                        lambda at: engine.SlotsAwaited(at=at, run=run, reason=reason),
                    )
            case engine.ReleaseSlots(run=run):
                self.held_slots.discard(run)
                if run in self.line:
                    self.line.remove(run)
                self._hand_out()
            case engine.AskCache(chunk=chunk):
                for key in keys_of(chunk):
                    self._look_up(key)
            case engine.FindValues(chunks=chunks):
                for chunk in chunks:
                    self.at(self.now + 0.001, _sought(chunk, found=self.rng.random() < 0.5))
            case _:
                pass

    def _hand_out(self) -> None:
        while self.line and len(self.held_slots) < _DB_SLOTS:
            run = self.line.popleft()
            self.held_slots.add(run)
            self.most_slots = max(self.most_slots, len(self.held_slots))
            self.at(self.now + 0.001, _granted(run))

    def _look_up(self, run: TaskRunKey) -> None:
        verdict = self.rng.choice([engine.CacheVerdict.HIT, engine.CacheVerdict.MISS])
        if self.rng.random() < 0.2:
            self.at(self.now + 0.001, _answered(run, engine.CacheVerdict.BUSY))
        self.at(self.now + 0.002, _answered(run, verdict))

    def _disturb(self) -> None:
        """Lose values, pause, and cancel calls, now and then."""
        if self.rng.random() < self.loss_rate:
            runs = [run for run in sorted(self.ran)[-20:] if self._has_value(run)]
            chunks = tuple(Chunk(*run, run.map_index + 1) for run in runs)
            self.at(self.now, lambda at: engine.ValuesLost(at=at, chunks=chunks))
        if self.rng.random() < self.steering_rate:
            self.at(self.now, lambda at: engine.PauseAsked(at=at, reason="night"))
            self.at(self.now + 0.3, lambda at: engine.UnpauseAsked(at=at))
        if self.rng.random() < self.steering_rate:
            node = self.rng.choice(self.calls).node
            self.at(
                self.now,
                lambda at: engine.CallCancelAsked(at=at, node=node, item=None, reason="no"),
            )

    def _has_value(self, run: TaskRunKey) -> bool:
        final = self.referee.finals.get(run)
        completed = final is not None and final.type is StateType.COMPLETED
        return completed and self.referee.has_value(run)

    # Workers ------------------------------------------------------------------------------------

    def _is_free(self, batch: int) -> None:
        self.busy.discard(batch)
        self._start()

    def _start(self) -> None:
        while self.waiting and len(self.busy) < self.slots:
            batch = self.waiting.popleft()
            self.busy.add(batch.batch)
            self._work(batch)

    def _work(self, batch: engine.SendBatch) -> None:
        """Plan what a worker will do with a batch from now on."""
        begin = self.now + self.latency
        deadline, clock = begin + batch.budget, begin
        calls = calls_of(batch)
        times = [(0.0, 0.0)] * len(calls)
        unstarted: list[int] = []
        outcomes: dict[int, Outcome] = {}
        done: set[TaskRunKey] = set()
        for position, (key, _) in enumerate(calls):
            if clock >= deadline and position:
                unstarted += range(position, len(calls))
                break
            if not self._has_inputs(key, done):
                unstarted.append(position)
                continue
            start, clock = clock, clock + self.seconds(key, self.rng)
            times[position] = start, clock
            fate = self.rng.random()
            if fate < self.crash_rate:
                self._die(batch, position, clock)
                return
            if fate < self.crash_rate + self.failure_rate:
                outcomes[position] = Outcome.FAILED
            else:
                done.add(key)
            rest = tuple(range(position + 1, len(calls)))
            if clock > deadline and rest:
                self._hand_back(batch, rest, deadline, begin)
            clock += self.overhead
        if clock <= deadline + self.overhead:
            self.held += [clock - begin] * len(unstarted)
        self._finish(batch, Told(outcomes, tuple(unstarted), times=times), clock, done)

    def _has_inputs(self, key: TaskRunKey, done: set[TaskRunKey]) -> bool:
        if key.map_index >= 0:
            return True
        call = self.calls[key.node]
        alone = call.options.trigger_rule is TriggerRule.ALL_SUCCESS
        return not alone or all(
            TaskRunKey(edge.source) in done or self._is_over(TaskRunKey(edge.source))
            for edge in call.edges
        )

    def _is_over(self, key: TaskRunKey) -> bool:
        return self.core.state(key)[0] is not StateName.SUBMITTED

    def _hand_back(
        self, batch: engine.SendBatch, rest: tuple[int, ...], at: float, begin: float
    ) -> None:
        self.held += [at - begin] * len(rest)
        self.at(
            at + self.latency,
            lambda now: engine.CallsReturned(at=now, batch=batch.batch, positions=rest),
        )

    def _finish(
        self, batch: engine.SendBatch, told: Told, at: float, done: set[TaskRunKey]
    ) -> None:
        for (key, _), (_, end) in zip(calls_of(batch), told.times, strict=True):
            if key in done:
                self.ran[key] = end
        telling = report(batch, _with_values(told, len(told.times), self.rng), at=at)
        self.at(at + self.latency, lambda now: engine.BatchFinished(at=now, report=telling))

    def _die(self, batch: engine.SendBatch, position: int, at: float) -> None:
        running = self.rng.choice([(position,), (position,), None])
        self.at(
            at + self.latency,
            lambda now: engine.BatchDied(
                at=now,
                batch=batch.batch,
                outcome=Outcome.CRASHED,
                message="killed",
                running=running,
            ),
        )


def _sought(chunk: Chunk, *, found: bool) -> Callable[[float], engine.Event]:
    if found:
        return lambda at: engine.ValuesFound(at=at, chunks=(chunk,))
    return lambda at: engine.ValuesLost(at=at, chunks=(chunk,))


def _granted(run: TaskRunKey) -> Callable[[float], engine.Event]:
    return lambda at: engine.SlotsGranted(at=at, run=run)


def _answered(run: TaskRunKey, verdict: engine.CacheVerdict) -> Callable[[float], engine.Event]:
    return lambda at: engine.CacheAnswered(at=at, run=run, verdict=verdict, length=3, truth=True)


def _with_values(told: Told, count: int, rng: random.Random) -> Told:
    truths = {n: rng.random() < 0.8 for n in range(count)} if count < 100 else {}
    lengths = dict.fromkeys(range(count), 3) if count < 100 else {}
    return Told(told.outcomes, told.unstarted, truths=truths, lengths=lengths, times=told.times)


def _groups(
    calls: list[engine.CallMade], rng: random.Random
) -> Iterable[tuple[engine.CallMade, ...]]:
    start = 0
    while start < len(calls):
        stop = start + rng.choice([1, 2, 10, 50])
        yield tuple(calls[start:stop])
        start = stop


def _registered(calls: tuple[engine.CallMade, ...]) -> Callable[[float], engine.Event]:
    return lambda at: engine.CallsRegistered(at=at, calls=calls)


def _dropped(node: int) -> Callable[[float], engine.Event]:
    return lambda at: engine.FuturesDropped(at=at, nodes=(node,))


def _arrived(
    node: int, length: int, *, complete: bool, error: str
) -> Callable[[float], engine.Event]:
    return lambda at: engine.ItemsArrived(
        at=at, node=node, length=length, complete=complete, error=error
    )


def random_flow(
    seed: int, task_runs: int, *, special: float = 0.0, answered: float = 0.0
) -> list[engine.CallMade]:
    """Make calls of all kinds that depend on earlier ones at random.

    Args:
        seed: Of the generator.
        task_runs: About how many runs there are to be.
        special: How many of the calls have limits, a cache, or run at most once.
        answered: Of how many of the calls an earlier process has left something.
    """
    rng = random.Random(seed)
    calls: list[engine.CallMade] = []
    made = 0
    while made < task_runs:
        node = len(calls)
        edges = []
        near = range(max(0, node - 20), node)
        for source in {rng.choice(near) for _ in range(rng.randrange(3))} if node else ():
            kind = rng.choice([*[EdgeKind.DATA] * 6, EdgeKind.ORDER, EdgeKind.CONDITION])
            edges.append(
                Edge(source=source, target=node, kind=kind, allow_failure=rng.random() < 0.2)
            )
        form, length, streamed = NodeKind.TASK, None, False
        choice = rng.random()
        if choice < 0.05:
            form = NodeKind.SUBFLOW
        elif choice < 0.3:
            form = NodeKind.MAP
            length, streamed = _mapped(rng, calls, edges, node)
        made += length or 1
        calls.append(
            engine.CallMade(
                at=0.0,
                node=node,
                kind=form,
                name=f"t{rng.randrange(3)}",
                key=f"t-{node}",
                options=_options(rng, form, special),
                edges=tuple(edges),
                length=length,
                streamed=streamed,
                runnable=rng.random() < 0.97,
                answers=_answers(rng, form) if rng.random() < answered else (),
            )
        )
    return calls


def _options(rng: random.Random, form: NodeKind, special: float) -> TaskOptions:
    if form is NodeKind.SUBFLOW:
        return TaskOptions()
    options = rng.choice(_OPTIONS)
    if special and rng.random() < special:
        return dataclasses.replace(options, **rng.choice(_SPECIAL))
    return options


def _answers(rng: random.Random, form: NodeKind) -> tuple[engine.Answer, ...]:
    has_value, truths = rng.random() < 0.5, b"\1" * 40
    if form is not NodeKind.MAP:
        answer = engine.Answer(has_value=has_value, truths=b"\1", length=3)
        return (answer._replace(completed=rng.random() < 0.8),)
    start = rng.randrange(5)
    stop = start + 1 + rng.randrange(10)
    begun = engine.Answer(stop, stop + 2, completed=False, attempts=2)
    return (engine.Answer(start, stop, has_value=has_value, truths=truths), begun)


def _mapped(
    rng: random.Random, calls: list[engine.CallMade], edges: list[Edge], node: int
) -> tuple[int | None, bool]:
    """Choose what a map is over: items of the body, a stream, another map, or a value."""
    choice = rng.random()
    sources = [call.node for call in calls[-20:]]
    if choice < 0.15:
        return None, True
    if choice < 0.6 and sources:
        maps = [n for n in sources if calls[n].kind is NodeKind.MAP]
        source = rng.choice(maps if maps and rng.random() < 0.8 else sources)
        edges.append(Edge(source=source, target=node, kind=EdgeKind.ITEM))
        return None, False
    length = rng.choice([0, 1, 7, 40])
    if length and sources and rng.random() < 0.2:
        edges.append(Edge(source=rng.choice(sources), target=node, target_item=length - 1))
    return length, False


_DB_SLOTS = 2
_SPECIAL: list[dict[str, Any]] = [
    {"limits": (("db", 1),)},
    {"cache": CacheOptions()},
    {"limits": (("db", 1),), "cache": CacheOptions()},
    {"at_most_once": True},
    {"teardown": True},
]
_OPTIONS = [
    TaskOptions(
        trigger_rule=rule,
        retry=RetryPolicy(retries=retries, crash_retries=retries, delays=delays),
        batch=batch,
        resources=Resources(num_cpus=cpus),
    )
    for rule, retries, delays, batch, cpus in [
        *[(TriggerRule.ALL_SUCCESS, 2, (0.5,), True, 1.0)] * 4,
        *[(TriggerRule.ALL_SUCCESS, 1, (), True, 1.0)] * 4,
        (TriggerRule.ALL_SUCCESS, 0, (), True, 1.0),
        (TriggerRule.ALL_SUCCESS, 1, (), False, 1.0),
        (TriggerRule.ALL_SUCCESS, 1, (), True, 0.5),
        *[(rule, 1, (), True, 1.0) for rule in TriggerRule],
    ]
]


def types_of(simulation: Simulation) -> Counter[StateType]:
    """Count the final states."""
    return Counter(name.type for name in simulation.referee.finals.values())
