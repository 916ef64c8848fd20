"""Hypothesis plays the runtime: it feeds events in any order that can happen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
from tests.unit.engine.harness import Referee, Told, calls_of, check, report
from tests.unit.engine.referee import USES

WINDOW = 4
ENDINGS = [Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.SKIPPED]
DEATHS = [Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.LOST, Outcome.TIMED_OUT, Outcome.FAILED]
SPECIAL: list[dict[str, Any]] = [
    *[{}] * 10,
    {"limits": (("db", 1),)},
    {"cache": CacheOptions()},
    {"limits": (("db", 1),), "cache": CacheOptions(), "priority": 3},
    {"at_most_once": True},
    {"memory_growth": 2.0},
    {"teardown": True},
    {"teardown": True, "teardown_counts": True, "limits": (("db", 1),)},
]
RULES = [*[TriggerRule.ALL_SUCCESS] * 12, *TriggerRule]


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = engine.Engine(window=WINDOW, slots=lambda _: 2, recall=self.recall)
        self.referee = Referee()
        self.now = 0.0
        self.out: dict[int, engine.SendBatch] = {}
        self.returned: dict[int, set[int]] = {}
        self.timers: list[TaskRunKey] = []
        self.subflows: list[TaskRunKey] = []
        self.streams: dict[int, int] = {}
        self.due: float | None = None
        self.body_ended = False
        self.sought: list[Chunk] = []
        self.graces: list[engine.SetGraceTimer] = []

    def recall(self, node: int) -> engine.CallMade | None:
        """Forget one call in eight."""
        return self.referee.calls[node]._replace(answers=()) if node % 8 != 7 else None

    def feed(self, event: engine.Event) -> None:
        self.now += 0.001
        self.referee.event(event)
        for command in self.core.handle(event):
            self.referee.command(command)
            self.take(command)
        self.referee.handled(event)

    def take(self, command: engine.Command) -> None:
        match command:
            case engine.SendBatch(batch=batch):
                self.out[batch] = command
                self.returned[batch] = set()
            case engine.SetRetryTimer(run=run):
                self.timers.append(run)
            case engine.SetSendTimer(due=due):
                self.due = due
            case engine.StartSubflow(run=run):
                self.subflows.append(run)
            case engine.FindValues(chunks=chunks):
                self.sought += chunks
            case engine.SetGraceTimer():
                self.graces.append(command)
            case _:
                pass

    # The body -----------------------------------------------------------------------------------

    @precondition(lambda self: not self.body_ended)
    @rule(data=st.data(), count=st.integers(1, 3))
    def register(self, data: st.DataObject, count: int) -> None:
        first = len(self.referee.calls)
        kinds = [call.kind for call in self.referee.calls]
        calls = []
        for node in range(first, first + count):
            calls.append(self.draw_call(data, node, kinds))
            kinds.append(calls[-1].kind)
            if calls[-1].streamed:
                self.streams[node] = 0
        self.feed(engine.CallsRegistered(at=self.now, calls=calls))

    def draw_call(self, data: st.DataObject, node: int, known: list[NodeKind]) -> engine.CallMade:
        left = sorted(set(range(node)) - self.referee.dropped)
        sources = data.draw(st.sets(st.sampled_from(left), max_size=3)) if left else set()
        kind = data.draw(st.sampled_from([*[NodeKind.TASK] * 3, *NodeKind]))
        kinds = [EdgeKind.DATA, EdgeKind.DATA, EdgeKind.ORDER, EdgeKind.CONDITION]
        edges = [
            Edge(
                source=source,
                target=node,
                kind=data.draw(st.sampled_from(kinds)),
                allow_failure=data.draw(st.booleans()),
                source_item=data.draw(st.sampled_from([None, 0, 2]))
                if known[source] is NodeKind.MAP
                else None,
            )
            for source in sorted(sources)
        ]
        length, streamed = None, False
        if kind is NodeKind.MAP:
            form = data.draw(st.sampled_from(["fed", "items", "stream"]))
            if form == "fed" and left:
                maps = [n for n in left if known[n] is NodeKind.MAP]
                fed = data.draw(st.sets(st.sampled_from(maps or left), min_size=1))
                edges += [Edge(source=n, target=node, kind=EdgeKind.ITEM) for n in sorted(fed)]
            elif form == "stream":
                streamed = True
            else:
                length = data.draw(st.integers(0, 5))
                with_future = data.draw(st.booleans())
                if left and with_future:
                    source = data.draw(st.sampled_from(left))
                    edges.append(Edge(source=source, target=node, target_item=1))
        options = self.draw_options(data, kind)
        setups = [edge.source for edge in edges if data.draw(st.booleans())]
        return engine.CallMade(
            at=self.now,
            node=node,
            kind=kind,
            name=data.draw(st.sampled_from(["a", "b"])),
            key=f"t-{node}",
            options=options,
            edges=tuple(edges),
            length=length,
            streamed=streamed,
            runnable=data.draw(st.sampled_from([True, True, True, False])),
            answers=self.draw_answers(data, kind),
            teardown_of=tuple(setups) if options.teardown else (),
        )

    def draw_options(self, data: st.DataObject, kind: NodeKind) -> TaskOptions:
        plain = TaskOptions(
            trigger_rule=data.draw(st.sampled_from(RULES)),
            retry=RetryPolicy(
                retries=data.draw(st.integers(0, 2)),
                crash_retries=data.draw(st.integers(0, 1)),
                delays=data.draw(st.sampled_from([(), (2.0,)])),
            ),
            batch=data.draw(st.sampled_from([True, True, True, False])),
            resources=Resources(num_cpus=data.draw(st.sampled_from([1.0, 1.0, 0.5]))),
        )
        if kind is NodeKind.SUBFLOW:
            return plain
        return replace(plain, **data.draw(st.sampled_from(SPECIAL)))

    def draw_answers(self, data: st.DataObject, kind: NodeKind) -> tuple[engine.Answer, ...]:
        if not data.draw(st.sampled_from([False, False, True])):
            return ()
        values = st.sampled_from([True, False])
        truths = b"\1" if data.draw(values) else b""
        if kind is not NodeKind.MAP:
            completed = data.draw(values)
            answer = engine.Answer(
                completed=completed, has_value=data.draw(values), truths=truths, length=2
            )
            return (answer,)
        start = data.draw(st.integers(0, 2))
        stop = data.draw(st.integers(start + 1, 5))
        last = engine.Answer(5, 6, completed=False, attempts=2)
        known = engine.Answer(start, stop, has_value=data.draw(values), truths=truths * 5)
        return (known, last)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), more=st.integers(0, 3), end=st.sampled_from(["", "", "end", "error"]))
    def arrive(self, data: st.DataObject, more: int, end: str) -> None:
        node = data.draw(st.sampled_from(sorted(self.streams)))
        self.streams[node] += more
        self.arrived(node, end)

    def arrived(self, node: int, end: str) -> None:
        length = self.streams[node] + (end == "error")
        if end:
            del self.streams[node]
        error = "the iterator raised" if end == "error" else ""
        self.feed(
            engine.ItemsArrived(
                at=self.now, node=node, length=length, complete=end == "end", error=error
            )
        )

    @precondition(lambda self: len(self.referee.calls) > len(self.referee.dropped))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        left = set(range(len(self.referee.calls))) - self.referee.dropped
        nodes = data.draw(st.sets(st.sampled_from(sorted(left)), min_size=1))
        self.feed(engine.FuturesDropped(at=self.now, nodes=sorted(nodes)))

    @precondition(lambda self: self.referee.calls)
    @rule(data=st.data())
    def cancel_call(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from([call.node for call in self.referee.calls]))
        item = data.draw(st.sampled_from([None, 0, 2]))
        self.feed(engine.CallCancelAsked(at=self.now, node=node, item=item, reason="not needed"))

    # What is outside ----------------------------------------------------------------------------

    @precondition(lambda self: len(self.referee.calls) > 4 and not self.referee.paused)
    @rule()
    def pause(self) -> None:
        if not self.referee.stopping:
            self.feed(engine.PauseAsked(at=self.now, reason="night"))

    @precondition(lambda self: self.referee.paused)
    @rule()
    def unpause(self) -> None:
        self.feed(engine.UnpauseAsked(at=self.now))

    @precondition(lambda self: self.referee.asked)
    @rule(data=st.data(), answer=st.sampled_from(["granted", "granted", "awaited", "refused"]))
    def slots(self, data: st.DataObject, answer: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.referee.asked)))
        if answer == "granted":
            self.feed(engine.SlotsGranted(at=self.now, run=run))
        elif answer == "awaited":
            self.feed(engine.SlotsAwaited(at=self.now, run=run, reason=f"full at {self.now}"))
        else:
            self.feed(engine.SlotsRefused(at=self.now, run=run, message="no such limit"))

    @precondition(lambda self: self.referee.looked)
    @rule(data=st.data(), verdict=st.sampled_from(engine.CacheVerdict))
    def look_up(self, data: st.DataObject, verdict: engine.CacheVerdict) -> None:
        run = data.draw(st.sampled_from(sorted(self.referee.looked)))
        self.feed(engine.CacheAnswered(at=self.now, run=run, verdict=verdict, length=2, truth=True))

    @precondition(lambda self: self.referee.finals or self.referee.answers)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        runs = self.with_value()
        if runs:
            lost = data.draw(st.sets(st.sampled_from(runs), min_size=1, max_size=3))
            chunks = [Chunk(run.node, run.map_index, run.map_index + 1) for run in sorted(lost)]
            self.feed(engine.ValuesLost(at=self.now, chunks=chunks))

    def with_value(self) -> list[TaskRunKey]:
        """Return the runs whose value is at hand."""
        referee = self.referee
        done = [run for run, name in referee.finals.items() if name.type is StateType.COMPLETED]
        answered = [run for run in referee.answers if self.core.state(run)[0].type.is_final]
        return sorted(run for run in {*done, *answered} if referee.has_value(run))

    @precondition(lambda self: self.sought)
    @rule(data=st.data(), found=st.booleans())
    def find(self, data: st.DataObject, found: bool) -> None:
        chunk = data.draw(st.sampled_from(self.sought))
        self.sought.remove(chunk)
        told = engine.ValuesFound if found else engine.ValuesLost
        self.feed(told(at=self.now, chunks=(chunk,)))

    @precondition(lambda self: not self.body_ended)
    @rule(data=st.data())
    def ask_value(self, data: st.DataObject) -> None:
        lost = sorted(
            run
            for run in self.referee.valueless - self.referee.released
            if run.node not in self.referee.dropped and self.referee.over(run)
        )
        if lost:
            run = data.draw(st.sampled_from(lost))
            self.feed(engine.ValueAsked(at=self.now, run=run))

    # The workers --------------------------------------------------------------------------------

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        left = self.left(batch)
        if left:
            run, attempt = calls_of(self.out[batch])[left[0]]
            self.feed(engine.CallBegan(at=self.now, run=run, attempt=attempt))

    def left(self, batch: int) -> list[int]:
        """Return the positions that are still in a batch."""
        size = len(calls_of(self.out[batch]))
        return [n for n in range(size) if n not in self.returned[batch]]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        rest = self.left(batch)[1:]
        if rest:
            positions = rest[data.draw(st.integers(0, len(rest) - 1)) :]
            self.returned[batch].update(positions)
            self.feed(engine.CallsReturned(at=self.now, batch=batch, positions=positions))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), seconds=st.sampled_from([1e-6, 0.001, 0.02, 1.0]))
    def finish(self, data: st.DataObject, seconds: float) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        left = self.left(batch)
        stop = data.draw(st.integers(1, len(left))) if left else 0
        outcomes = {n: data.draw(st.sampled_from(ENDINGS)) for n in left[:stop]}
        truths = {n: data.draw(st.sampled_from([True, False, None])) for n in left[:stop]}
        lengths = {n: data.draw(st.sampled_from([None, 0, 2])) for n in left[:stop]}
        told = Told(outcomes, seconds=seconds, truths=truths, lengths=lengths)
        if left and data.draw(st.sampled_from([False, False, False, True])):
            self.lose_inputs(batch, left[0], told)
        self.end(batch, told)

    def lose_inputs(self, batch: int, position: int, told: Told) -> None:
        """Have the first call of a batch find that it cannot get its inputs."""
        key, _ = calls_of(self.out[batch])[position]
        edges = self.referee.calls[key.node].edges
        inputs = [n for n, edge in enumerate(edges) if edge.kind in USES]
        inputs = [n for n in inputs if edges[n].target_item in (None, key.map_index)]
        if inputs:
            told.outcomes = {**told.outcomes, position: Outcome.LOST}
            told.lost_inputs = {position: tuple(inputs)}

    def end(self, batch: int, told: Told) -> None:
        """Finish a batch; what cannot run, or is not in `told`, is handed back."""
        sent = self.out.pop(batch)
        calls = calls_of(sent)
        inside = {key for key, _ in calls}
        outcomes: dict[int, Outcome] = {}
        done: set[TaskRunKey] = set()
        for position, outcome in told.outcomes.items():
            key = calls[position][0]
            call = self.referee.calls[key.node]
            needs = {TaskRunKey(edge.source) for edge in call.edges} if key.map_index < 0 else set()
            open_needs = {need for need in needs if self.core.state(need)[0] is StateName.SUBMITTED}
            plain = call.options.trigger_rule is TriggerRule.ALL_SUCCESS
            if not plain or (open_needs & inside) <= done:
                outcomes[position] = outcome
                if outcome is Outcome.COMPLETED:
                    done.add(key)
        unstarted = tuple(n for n in range(len(calls)) if n not in outcomes)
        told.outcomes, told.unstarted = outcomes, unstarted
        del self.returned[batch]
        self.feed(engine.BatchFinished(at=self.now, report=report(sent, told, at=self.now)))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(DEATHS))
    def die(self, data: st.DataObject, outcome: Outcome) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        size = len(calls_of(self.out[batch]))
        running = data.draw(st.one_of(st.none(), st.just(()), st.tuples(st.integers(0, size - 1))))
        del self.out[batch], self.returned[batch]
        self.feed(
            engine.BatchDied(
                at=self.now, batch=batch, outcome=outcome, message="gone", running=running
            )
        )

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def timer(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.timers))
        self.timers.remove(run)
        self.feed(engine.RetryDue(at=self.now, run=run))

    @precondition(lambda self: self.graces)
    @rule()
    def grace(self) -> None:
        timer = self.graces.pop()
        self.feed(engine.GraceOver(at=self.now, batch=timer.batch))

    @precondition(lambda self: self.due is not None)
    @rule()
    def send(self) -> None:
        assert self.due is not None
        self.now, self.due = max(self.now, self.due), None
        self.feed(engine.SendDue(at=self.now))

    @precondition(lambda self: self.subflows)
    @rule(data=st.data(), completed=st.booleans())
    def end_subflow(self, data: st.DataObject, completed: bool) -> None:
        run = data.draw(st.sampled_from(self.subflows))
        self.subflows.remove(run)
        state = State(name=StateName.COMPLETED if completed else StateName.FAILED, at=self.now)
        self.feed(engine.SubflowEnded(at=self.now, run=run, state=state, length=2, truth=True))

    # The end ------------------------------------------------------------------------------------

    @precondition(lambda self: self.referee.finals)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.referee.finals)))
        self.feed(engine.FailureSeen(at=self.now, run=run))

    @precondition(lambda self: len(self.referee.calls) > 10)
    @rule()
    def cancel(self) -> None:
        self.feed(engine.CancelAsked(at=self.now, reason="enough"))

    @precondition(lambda self: len(self.referee.calls) > 12 and not self.body_ended)
    @rule(raised=st.booleans())
    def end_body(self, raised: bool) -> None:
        self.body_ended = True
        self.feed(engine.BodyEnded(at=self.now, raised=raised))

    @invariant()
    def holds(self) -> None:
        check(self.core, WINDOW)
        assert self.core.in_flight == len(self.out)

    def teardown(self) -> None:
        """Let everything come to its end: nothing may be left hanging."""
        if not self.body_ended:
            self.feed(engine.BodyEnded(at=self.now))
        if self.referee.paused:
            self.unpause()
        steps = 0
        while self.is_busy():
            steps += 1
            assert steps < 10_000
            self.one_step()
        nodes = range(len(self.referee.calls))
        self.feed(engine.FuturesDropped(at=self.now, nodes=nodes))
        self.referee.check_end()

    def is_busy(self) -> bool:
        waiting = self.referee.asked or self.referee.looked or self.sought
        timers = self.timers or self.due is not None
        return bool(self.out or timers or self.subflows or self.streams or waiting)

    def one_step(self) -> None:
        if self.referee.asked:
            self.feed(engine.SlotsGranted(at=self.now, run=min(self.referee.asked)))
        elif self.referee.looked:
            run, miss = min(self.referee.looked), engine.CacheVerdict.MISS
            self.feed(engine.CacheAnswered(at=self.now, run=run, verdict=miss))
            self.referee.looked.discard(run)
        elif self.sought:
            self.feed(engine.ValuesFound(at=self.now, chunks=(self.sought.pop(),)))
        elif self.out:
            batch = next(iter(self.out))
            self.end(batch, Told(dict.fromkeys(self.left(batch), Outcome.COMPLETED)))
        elif self.due is not None:
            self.send()
        elif self.timers:
            self.feed(engine.RetryDue(at=self.now, run=self.timers.pop()))
        elif self.streams:
            self.arrived(next(iter(self.streams)), "end")
        else:
            state = State(name=StateName.COMPLETED, at=self.now)
            run = self.subflows.pop()
            self.feed(engine.SubflowEnded(at=self.now, run=run, state=state, length=1))


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
