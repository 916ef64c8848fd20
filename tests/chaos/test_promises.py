"""Each rule of the checker fails once: a checker that cannot fail proves nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raflow.model import (
    Attempt,
    FlowRun,
    Outcome,
    ResultInfo,
    State,
    StateName,
    TaskRun,
    TaskRunKey,
)
from tests.chaos.journal import (
    Ack,
    Entry,
    Event,
    Key,
    Promise,
    acknowledge,
    read_journal,
    read_ledger,
)
from tests.chaos.promises import RULES, Budget, Record, Story, broken

A, B, C = Key("run-1", 0, -1), Key("run-1", 1, 0), Key("run-2", 0, -1)


def entry(key: Key, event: Event, at: float, **more: Any) -> Entry:
    facts: dict[str, Any] = {"task": "step", "attempt": 1, "epoch": 1, "pid": 7, **more}
    return Entry(run=key.run, node=key.node, map_index=key.map_index, event=event, time=at, **facts)


def flow_run(run: str, name: StateName) -> FlowRun:
    state = State(name=name, at=20.0)
    return FlowRun(id=run, flow="f", fingerprint="", name=run, state=state)


def task_run(key: Key, name: StateName, attempts: int = 1) -> TaskRun:
    preview = f"'by attempt {attempts}'"
    return TaskRun(
        flow_run_id=key.run,
        key=TaskRunKey(key.node, key.map_index),
        task="step",
        label=f"step-{key.node}",
        state=State(name=name, at=10.0),
        attempts=attempts,
        result=ResultInfo(type="builtins.str", size=60, preview=preview),
    )


FINE = Story(
    journal=(
        entry(A, Event.BEGUN, 1.0),
        entry(B, Event.BEGUN, 2.0),
        entry(A, Event.BEAT, 2.5),
        entry(B, Event.DONE, 3.0),
        entry(A, Event.BEGUN, 4.0, attempt=2, pid=8),
        entry(A, Event.DONE, 5.0, attempt=2, pid=8),
        entry(C, Event.BEGUN, 6.0),
        entry(C, Event.RAISED, 8.0),
    ),
    acks=(
        Ack(run="run-1", promise=Promise.ACCEPTED, time=0.5),
        Ack(run="run-1", promise=Promise.ENDED, time=5.5, state="Completed"),
        Ack(run="run-2", promise=Promise.CANCELLING, time=7.0),
    ),
    record=Record(
        runs={
            "run-1": flow_run("run-1", StateName.COMPLETED),
            "run-2": flow_run("run-2", StateName.CANCELLED),
        },
        task_runs={
            A: task_run(A, StateName.RECOVERED, 2),
            B: task_run(B, StateName.COMPLETED),
            C: task_run(C, StateName.CANCELLED),
        },
        attempts={},
    ),
    faults=("SIGKILL of process 7",),
    budgets={"step": Budget(crash_retries=1)},
)


def plus(*entries: Entry) -> Story:
    return dataclasses.replace(FINE, journal=(*FINE.journal, *entries))


def recorded(**changes: dict[Any, Any]) -> Story:
    """Change some rows; None takes one away."""
    fields: dict[str, Any] = {}
    for name, rows in changes.items():
        merged = {**getattr(FINE.record, name), **rows}
        fields[name] = {key: row for key, row in merged.items() if row is not None}
    return dataclasses.replace(FINE, record=dataclasses.replace(FINE.record, **fields))


def story(**changes: Any) -> Story:
    return dataclasses.replace(FINE, **changes)


LIES: dict[str, Callable[[], Story]] = {
    "void": lambda: story(faults=()),
    "P1 an accepted run is never lost": lambda: story(
        acks=(*FINE.acks, Ack(run="run-3", promise=Promise.ACCEPTED, time=1.0))
    ),
    "P2 attempts are recorded": lambda: recorded(
        task_runs={A: dataclasses.replace(FINE.record.task_runs[A], attempts=1, result=None)}
    ),
    "P2 a recorded result is not recomputed": lambda: dataclasses.replace(
        plus(
            entry(B, Event.BEGUN, 9.0, epoch=2),
            entry(B, Event.DONE, 9.5, epoch=2),
        ),
        earlier=(FINE.record,),
        budgets={"step": Budget(crash_retries=2)},
    ),
    "P3 executions stay within the budget": lambda: story(budgets={}),
    "P3 what completed has run": lambda: story(
        journal=tuple(e for e in FINE.journal if (e.key, e.event) != (B, Event.DONE))
    ),
    "P4 no attempt runs twice": lambda: plus(entry(B, Event.BEGUN, 3.5)),
    "P4 one attempt lives": lambda: plus(entry(A, Event.BEAT, 4.5)),
    "P4 the newest attempt counts": lambda: recorded(
        task_runs={
            A: dataclasses.replace(FINE.record.task_runs[A], result=FINE.record.task_runs[B].result)
        }
    ),
    "P7 every run ends": lambda: recorded(runs={"run-2": flow_run("run-2", StateName.RUNNING)}),
    "P7 no task run outlives its run": lambda: recorded(
        task_runs={C: task_run(C, StateName.RUNNING)}
    ),
    "P7 a final state is told truly": lambda: story(
        acks=(*FINE.acks, Ack(run="run-2", promise=Promise.ENDED, time=9.0, state="Completed"))
    ),
    "P7 success is whole": lambda: recorded(task_runs={B: task_run(B, StateName.FAILED)}),
    "P8 nothing begins after a cancel": lambda: plus(entry(C, Event.BEGUN, 7.5)),
    "P8 what ran ends after a cancel": lambda: plus(entry(C, Event.BEAT, 23.0)),
}


def test_what_kept_every_promise_is_accepted() -> None:
    assert broken(FINE) == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_finds_its_lie(rule: str) -> None:
    found = {violation.rule for violation in broken(LIES[rule]())}
    assert rule in found
    # A lie about one thing may break a neighbouring promise, and no other one.
    assert {other.partition(" ")[0] for other in found} <= {rule.partition(" ")[0], "P3", "P4"}


def test_every_lie_is_about_a_rule() -> None:
    assert LIES.keys() == RULES.keys()


def test_what_was_given_up_may_go_on_in_vain() -> None:
    late = plus(entry(A, Event.BEAT, 4.5))
    assert broken(dataclasses.replace(late, fenced=frozenset({(A, 1)}))) == []


def test_what_a_dead_process_has_begun_may_go_on_for_a_lease() -> None:
    again = plus(
        entry(C, Event.BEGUN, 9.0, epoch=2, attempt=2),
        entry(C, Event.BEAT, 12.0),
        entry(A, Event.BEAT, 4.5),
    )
    rule = RULES["P4 one attempt lives"]
    told = {lease: " ".join(rule(dataclasses.replace(again, lease=lease))) for lease in (2.0, 4.0)}
    assert "run-2" in told[2.0]
    assert "run-2" not in told[4.0]
    # Of one process that holds never.
    assert "run-1" in told[4.0]


def test_a_lost_value_may_be_computed_again() -> None:
    again = dataclasses.replace(
        plus(entry(B, Event.BEGUN, 9.0, epoch=2), entry(B, Event.DONE, 9.5, epoch=2)),
        earlier=(FINE.record,),
        recomputed=frozenset({B}),
    )
    assert broken(again) == []


def test_a_bystander_of_a_death_may_run_again_if_that_is_on_record() -> None:
    again = dataclasses.replace(
        plus(entry(B, Event.BEGUN, 9.0, attempt=3), entry(B, Event.DONE, 9.5, attempt=3)),
        record=dataclasses.replace(
            FINE.record,
            task_runs={**FINE.record.task_runs, B: task_run(B, StateName.RECOVERED, 3)},
        ),
        budgets={},
    )
    seen = Attempt(
        flow_run_id="run-1",
        key=TaskRunKey(B.node, B.map_index),
        number=1,
        outcome=Outcome.LOST,
        submitted_at=1.0,
        started_at=None,
        ended_at=2.0,
        message="its process ended while another call of its batch ran; it runs again",
    )
    accused = {key for key, told in _over_budget(again)}
    excused = {key for key, told in _over_budget(_with_attempts(again, {B: (seen,), A: (seen,)}))}
    assert (accused, excused) == ({A, B}, set())


def _with_attempts(told: Story, attempts: dict[Key, tuple[Attempt, ...]]) -> Story:
    return dataclasses.replace(told, record=dataclasses.replace(told.record, attempts=attempts))


def _over_budget(told: Story) -> list[tuple[Key, str]]:
    rule = RULES["P3 executions stay within the budget"]
    return [(key, text) for text in rule(told) for key in (A, B, C) if str(key) in text]


def test_a_call_that_may_run_once_has_no_budget_for_a_second_process() -> None:
    assert Budget(once=True).executions(3) == 1
    assert Budget(retries=1, crash_retries=2).executions(1) == 4
    assert Budget().executions(2) == 2


def test_a_process_works_for_whoever_drove_the_run_when_it_began(tmp_path: Path) -> None:
    begun = {"run": "r", "task": "t", "node": 0, "map_index": -1, "attempt": 1, "event": "begun"}
    lines = [(7, 1.0), (8, 2.0), (7, 5.0), (9, 6.0), (9, 12.0), (10, 11.0)]
    text = "".join(f"{json.dumps(begun | {'pid': pid, 'time': at})}\n" for pid, at in lines)
    (tmp_path / "journal").write_text(text)
    epochs = [entry.epoch for entry in read_journal(tmp_path / "journal", [4.0, 10.0])]
    assert epochs == [1, 1, 1, 2, 2, 3]


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    ack = Ack(run="run-1", promise=Promise.ENDED, time=1.5, state="Completed")
    acknowledge(str(tmp_path / "ledger"), ack)
    assert read_ledger(tmp_path / "ledger") == [ack]
    assert read_journal(tmp_path / "journal") == []
