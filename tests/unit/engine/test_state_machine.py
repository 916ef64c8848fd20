"""Hypothesis plays the runtime: it feeds events in any order that can happen."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raflow import engine
from raflow.model import (
    BatchReport,
    Edge,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    State,
    StateName,
    TaskOptions,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.harness import check, report

WINDOW = 4
ENDINGS = [Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.SKIPPED]
DEATHS = [Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.LOST, Outcome.TIMED_OUT, Outcome.FAILED]


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = engine.Engine(window=WINDOW)
        self.now = 0.0
        self.out: dict[int, engine.Planned] = {}
        self.timers: list[TaskRunKey] = []
        self.subflows: list[TaskRunKey] = []
        self.attempts: set[engine.Planned] = set()
        self.finals: dict[TaskRunKey, StateName] = {}
        self.body_ended = False
        self.cancelled = False
        self.settled = 0

    def feed(self, event: engine.Event) -> None:
        self.now += 1.0
        for command in self.core.handle(event):
            self.take(command)

    def take(self, command: engine.Command) -> None:
        match command:
            case engine.SendBatch(batch=batch, calls=(call,)):
                assert not self.cancelled, "nothing starts after a cancel"
                assert call not in self.attempts, "no attempt is sent twice"
                self.attempts.add(call)
                self.out[batch] = call
            case engine.SetRetryTimer(run=run):
                self.timers.append(run)
            case engine.StartSubflow(run=run):
                assert not self.cancelled
                self.subflows.append(run)
            case engine.StateEntered(run=run, state=state) if state.is_final:
                assert run not in self.finals, "one final state each"
                self.finals[run] = state.name
            case engine.RunSettled():
                self.settled += 1
            case _:
                pass

    @precondition(lambda self: not self.body_ended)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        node = len(self.core.nodes)
        sources = data.draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set()
        maps = [n for n in sources if self.core.nodes[n].is_map]
        kind = data.draw(st.sampled_from(list(NodeKind)))
        kinds = [EdgeKind.DATA, EdgeKind.ORDER, EdgeKind.CONDITION]
        edges = [
            Edge(
                source=source,
                target=node,
                kind=data.draw(st.sampled_from(kinds)),
                allow_failure=data.draw(st.booleans()),
            )
            for source in sorted(sources)
        ]
        length = data.draw(st.integers(0, 5)) if kind is NodeKind.MAP else None
        if kind is NodeKind.MAP and sources and data.draw(st.booleans()):
            source = data.draw(st.sampled_from(sorted(maps or sources)))
            edges.append(Edge(source=source, target=node, kind=EdgeKind.ITEM))
            length = None
        options = TaskOptions(
            trigger_rule=data.draw(st.sampled_from(list(TriggerRule))),
            retry=RetryPolicy(
                retries=data.draw(st.integers(0, 2)),
                crash_retries=data.draw(st.integers(0, 1)),
                delays=data.draw(st.sampled_from([(), (2.0,)])),
            ),
        )
        self.feed(
            engine.CallRegistered(
                at=self.now,
                node=node,
                kind=kind,
                name="t",
                key=f"t-{node}",
                options=options,
                edges=tuple(edges),
                length=length,
                runnable=data.draw(st.sampled_from([True, True, True, False])),
            )
        )

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        call = self.out[data.draw(st.sampled_from(sorted(self.out)))]
        self.feed(engine.CallBegan(at=self.now, run=call.run, attempt=call.attempt))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(ENDINGS), length=st.sampled_from([None, 0, 2]))
    def finish(self, data: st.DataObject, outcome: Outcome, length: int | None) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        call = self.out.pop(batch)
        truth = data.draw(st.sampled_from([True, False, None]))
        told = report(call.run, call.attempt, outcome, at=self.now, truth=truth, length=length)
        finished = BatchReport(batch=batch, calls=(told,))
        self.feed(engine.BatchFinished(at=self.now, report=finished))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(DEATHS))
    def die(self, data: st.DataObject, outcome: Outcome) -> None:
        batch = data.draw(st.sampled_from(sorted(self.out)))
        del self.out[batch]
        self.feed(engine.BatchDied(at=self.now, batch=batch, outcome=outcome, message="gone"))

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def timer(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.timers))
        self.timers.remove(run)
        self.feed(engine.RetryDue(at=self.now, run=run))

    @precondition(lambda self: self.subflows)
    @rule(data=st.data(), completed=st.booleans())
    def end_subflow(self, data: st.DataObject, completed: bool) -> None:
        run = data.draw(st.sampled_from(self.subflows))
        self.subflows.remove(run)
        state = State(name=StateName.COMPLETED if completed else StateName.FAILED, at=self.now)
        self.feed(engine.SubflowEnded(at=self.now, run=run, state=state, length=2, truth=True))

    @precondition(lambda self: self.finals)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.finals)))
        self.feed(engine.FailureSeen(at=self.now, run=run))

    @precondition(lambda self: len(self.core.nodes) > 3)
    @rule()
    def cancel(self) -> None:
        self.cancelled = True
        self.feed(engine.CancelAsked(at=self.now, reason="enough"))

    @precondition(lambda self: len(self.core.nodes) > 5 and not self.body_ended)
    @rule(raised=st.booleans())
    def end_body(self, raised: bool) -> None:
        self.body_ended = True
        self.cancelled = self.cancelled or raised
        self.feed(engine.BodyEnded(at=self.now, raised=raised))

    @invariant()
    def holds(self) -> None:
        check(self.core, WINDOW)
        assert self.core.in_flight == len(self.out)

    def teardown(self) -> None:
        """Let everything come to its end: nothing may be left hanging."""
        steps = 0
        while self.out or self.timers or self.subflows:
            steps += 1
            assert steps < 10_000
            self._one_step()
        if not self.body_ended:
            self.feed(engine.BodyEnded(at=self.now))
            while self.out or self.timers or self.subflows:
                self._one_step()
        assert self.settled == 1
        assert all(node.is_final for node in self.core.nodes)

    def _one_step(self) -> None:
        if self.out:
            batch, call = self.out.popitem()
            told = report(call.run, call.attempt, at=self.now, length=1, truth=True)
            done: Any = BatchReport(batch=batch, calls=(told,))
            self.feed(engine.BatchFinished(at=self.now, report=done))
        elif self.timers:
            self.feed(engine.RetryDue(at=self.now, run=self.timers.pop()))
        else:
            state = State(name=StateName.COMPLETED, at=self.now)
            run = self.subflows.pop()
            self.feed(engine.SubflowEnded(at=self.now, run=run, state=state, length=1))


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
