"""Why a flow run, or a call of it, does not go on, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raflow.model import (
    Dispatch,
    FlowRun,
    InputRequest,
    Limit,
    LimitState,
    Pool,
    PoolState,
    RequestKind,
    RunLease,
    RunRequest,
    SlotLease,
    Stage,
    State,
    StateName,
    StateType,
    TaskRun,
    TaskRunKey,
    Wait,
    WaitSnapshot,
    Why,
    WhySnapshot,
    Work,
)
from raflow.service import explain

NOW = 1_790_000_000.0
RUN = FlowRun(
    id="0123456789abcdef",
    flow="etl",
    fingerprint="f",
    name="etl-abcdef",
    state=State(name=StateName.RUNNING, at=NOW - 60),
)
LEASE = RunLease(
    flow_run_id=RUN.id,
    incarnation=1,
    host="box",
    pid=7,
    process_started=0.0,
    renewed_at=NOW - 1,
    expires_at=NOW + 9,
)


def why(state: StateName, *, seen: Any = None, reason: str = "", **about: Any) -> Why:
    run = replace(RUN, state=State(name=state, at=NOW - 60, reason=reason))
    about_it = {"dispatch": None, "lease": LEASE, **(seen or {})}
    waits = WaitSnapshot(at=NOW, flow_run=run, **about_it)
    return explain(WhySnapshot(waits=waits, **about))


def only(found: Why) -> tuple[str, str, list[str]]:
    [wait] = found.waits
    return wait.code, wait.text, [change.command for change in wait.changes]


def call(number: int, name: StateName, *, reason: str = "", since: float = 5) -> TaskRun:
    return TaskRun(
        flow_run_id=RUN.id,
        key=TaskRunKey(0, number),
        task="load",
        label=f"load-0[{number}]",
        state=State(name=name, at=NOW - since, reason=reason),
        started_at=NOW - since,
    )


def test_a_run_that_goes_on_or_is_over_does_not_wait() -> None:
    on = why(
        StateName.RUNNING,
        running=(call(0, StateName.RUNNING, since=2), call(1, StateName.RUNNING, since=9)),
        counts={StateType.RUNNING: 2, StateType.PENDING: 1},
    )
    assert (on.summary, on.waits) == ("it goes on: 2 calls of it run, 1 waits", ())
    assert [one.label for one in on.running] == ["load-0[1]", "load-0[0]"]
    over = why(StateName.FAILED, running=(call(0, StateName.RUNNING),))
    assert over.summary == "it does not wait: it is over, Failed"
    assert (over.waits, over.running) == ((), ())


def test_a_run_that_is_to_be_resumed_is_not_over() -> None:
    place = Dispatch(
        flow_run_id=RUN.id,
        pool="gpu",
        deployment="nightly",
        stage=Stage.WAITING,
        kind=Work.RESUME,
        priority=0,
        begins_at=NOW - 5,
        ordered_at=NOW - 5,
    )
    seen = {"dispatch": place, "lease": None, "pool": PoolState(pool=Pool(name="gpu"))}
    again = why(StateName.FAILED, seen=seen)
    assert again.summary == "it is Failed, and waits to be resumed"
    assert only(again) == ("no_worker", "pool 'gpu' has no worker", ["raflow worker --pool gpu"])
    ends = why(StateName.FAILED, seen=seen | {"dispatch": replace(place, kind=Work.END)})
    assert ends.summary == "it does not wait: it is over, Failed"


def test_a_run_says_what_people_are_to_do() -> None:
    code, text, commands = only(why(StateName.PAUSED, reason="ann wants a look"))
    assert (code, text, commands) == ("paused", "ann wants a look", ["raflow unpause etl-abcdef"])
    code, text, commands = only(why(StateName.SUSPENDED))
    assert (code, text, commands) == ("suspended", "it is suspended", ["raflow resume etl-abcdef"])
    question = InputRequest(
        flow_run_id=RUN.id,
        number=3,
        title="Ship it?",
        form={},
        asked_at=NOW - 9,
        expires_at=NOW + 60,
        assignees=("ada", "bob"),
    )
    found = why(StateName.AWAITING_INPUT, seen={"questions": (question,)})
    code, text, commands = only(found)
    assert (found.summary, code) == ("it waits", "input")
    assert text.startswith("'Ship it?' waits for an answer of ada or bob; without one its default")
    assert commands == ["raflow input answer etl-abcdef 3"]
    asked = RunRequest(id=1, flow_run_id=RUN.id, kind=RequestKind.CANCEL, by="ann", at=NOW)
    code, text, _ = only(why(StateName.RUNNING, seen={"requests": (asked,)}))
    assert (code, text) == ("asked", "ann has asked it to cancel, and it has not yet")


def test_a_run_whose_process_is_silent_says_so() -> None:
    silent = replace(LEASE, renewed_at=NOW - 30, expires_at=NOW - 20)
    code, text, commands = only(why(StateName.RUNNING, seen={"lease": silent}))
    assert code == "lost"
    assert "process 7 on host 'box', which drives it, has given no sign of life since" in text
    assert commands == ["raflow resume etl-abcdef", "raflow reap etl-abcdef"]


def test_what_holds_up_calls_and_retries_is_told() -> None:
    code, text, _ = only(why(StateName.RUNNING, reason="Ray cannot start worker processes"))
    assert (code, text) == ("backend", "Ray cannot start worker processes")
    code, text, _ = only(why(StateName.AWAITING_RETRY, reason="attempt 2 begins in 5 s"))
    assert (code, text) == ("retry_delay", "attempt 2 begins in 5 s")
    found = why(
        StateName.RUNNING,
        calls=tuple(call(n, StateName.AWAITING_RETRY, reason="in 5 s") for n in range(25)),
        running=(call(30, StateName.RUNNING, reason="no node has 1 GPU free"),),
        counts={StateType.RUNNING: 1, StateType.SCHEDULED: 25},
    )
    retries, held = found.waits
    assert (retries.code, retries.text, retries.count) == ("retry_delay", "in 5 s", 25)
    assert (len(retries.calls), retries.since) == (20, NOW - 5)
    assert (held.code, held.text, held.calls) == (
        "backend",
        "no node has 1 GPU free",
        ("load-0[30]",),
    )


def slot(holder: str, run: str, label: str, since: float) -> SlotLease:
    return SlotLease(
        holder=holder,
        flow_run_id=run,
        label=label,
        amount=1,
        priority=0,
        since=since,
        expires_at=NOW + 60,
    )


def limit_wait(found: Why) -> Wait:
    [wait] = found.waits
    assert wait.code == "limit"
    return wait


def test_who_holds_the_slots_that_a_call_waits_for_is_told() -> None:
    state = LimitState(
        limit=Limit(name="warehouse", slots=1),
        holders=(slot("h", "ffffffffffffeeeeeeeeeeee", "load-0 of run old", NOW - 50),),
        waiters=(
            slot("a", "somebody", "x", NOW - 40),
            slot("b", RUN.id, "load-0[2] of run etl-abcdef", NOW - 30),
        ),
    )
    waiting = call(2, StateName.AWAITING_SLOT, reason="said by the call")
    wait = limit_wait(why(StateName.RUNNING, limits=(state,), calls=(waiting,)))
    assert wait.text == (
        "limit 'warehouse' has 1 of 1 slot taken, by load-0 of run old; 1 other came before"
    )
    assert (wait.calls, wait.since) == (("load-0[2]",), NOW - 30)
    assert [change.command for change in wait.changes] == [
        "raflow limits set warehouse SLOTS",
        "raflow cancel eeeeeeeeeeee",
    ]
    # Nobody has told the limit yet, or it is another database's: what the call says counts.
    wait = limit_wait(why(StateName.RUNNING, calls=(waiting,)))
    assert (wait.text, wait.calls) == ("said by the call", ("load-0[2]",))


def test_calls_that_were_cached_or_recovered_say_why() -> None:
    origin = "computed by load of run 0a1b"
    found = why(
        StateName.COMPLETED,
        completed=(
            call(0, StateName.CACHED, reason=origin),
            call(1, StateName.CACHED, reason=origin),
            call(2, StateName.COMPLETED),
            replace(call(3, StateName.RECOVERED), attempts=2),
        ),
    )
    cached, recovered = found.notes
    assert (cached.state, cached.text, cached.count) == (StateName.CACHED, origin, 2)
    assert cached.calls == ("load-0[0]", "load-0[1]")
    assert (recovered.text, recovered.calls) == (
        "attempt 2 completed, those before did not",
        ("load-0[3]",),
    )
