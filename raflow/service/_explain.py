"""Why a flow run, or a part of it, does not go on; why calls of it were not simply run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from raflow import model
from raflow._util import short_id
from raflow.model import Change, StateName, StateType, Wait
from raflow.service._why import waits
from raflow.store import Store

NAMED: Final = 20
"""So many calls are named of those that wait for the same."""
_RUNNING: Final = 5
_LOOKED_AT: Final = 2_000
"""So many calls of each kind are looked at."""
_IDLE: Final = frozenset({StateType.SCHEDULED, StateType.PENDING})


def look(store: Store, flow_run_id: str) -> model.WhySnapshot:
    """Read what tells why a flow run does not go on.

    Raises:
        NotFoundError: There is no such run.
    """
    seen = store.work.snapshot(flow_run_id)
    counts: dict[StateType, int] = {}
    for of_node in store.task_run_counts(flow_run_id).values():
        for kind, number in of_node.items():
            counts[kind] = counts.get(kind, 0) + number
    held = () if seen.flow_run.state.is_final else store.limits.all()

    def calls(*kinds: StateType) -> tuple[model.TaskRun, ...]:
        if not any(counts.get(kind) for kind in kinds):
            return ()
        return tuple(store.task_runs(flow_run_id, state_types=kinds, limit=_LOOKED_AT))

    return model.WhySnapshot(
        waits=seen,
        calls=tuple(call for call in calls(*_IDLE) if _knows_why(call)),
        running=calls(StateType.RUNNING),
        completed=calls(StateType.COMPLETED),
        limits=tuple(
            limit for limit in held if any(w.flow_run_id == flow_run_id for w in limit.waiters)
        ),
        counts=counts,
    )


def explain(seen: model.WhySnapshot) -> model.Why:
    """Say why a flow run does not go on, and what would change that."""
    run = seen.waits.flow_run
    over = _is_over(seen.waits)
    found = () if over else tuple(_waits(seen))
    running = sorted(seen.running, key=lambda call: call.started_at or call.state.at)
    return model.Why(
        flow_run=run,
        summary=_summary(seen, found),
        waits=found,
        running=() if over else tuple(running[:_RUNNING]),
        notes=tuple(_notes(seen.completed)),
    )


def _is_over(before: model.WaitSnapshot) -> bool:
    """Tell whether nothing more happens to a run, unless somebody asks for it."""
    goes_on = before.dispatch is not None and before.dispatch.kind is not model.Work.END
    return before.flow_run.state.is_final and not goes_on


def _summary(seen: model.WhySnapshot, found: Sequence[Wait]) -> str:
    run = seen.waits.flow_run
    if _is_over(seen.waits):
        return f"it does not wait: it is over, {run.state.name.value}"
    if run.state.is_final:
        return f"it is {run.state.name.value}, and waits to be resumed"
    if any(not wait.calls for wait in found):
        return "it waits"
    number = seen.counts.get(StateType.RUNNING, 0)
    goes_on = f"it goes on: {_count(number, 'call')} of it {'runs' if number == 1 else 'run'}"
    idle = sum(seen.counts.get(kind, 0) for kind in _IDLE)
    return f"{goes_on}, {idle} {'waits' if idle == 1 else 'wait'}" if idle else goes_on


# --- Of the run -----------------------------------------------------------------------------------


def _waits(seen: model.WhySnapshot) -> Iterator[Wait]:
    run, before = seen.waits.flow_run, seen.waits
    begun = run.state.type in {StateType.RUNNING, StateType.CANCELLING}
    if not begun:
        yield from waits(before)
    yield from _asked(before)
    yield from _lost(before)
    yield from _questions(before)
    yield from _own_state(before)
    yield from _limits(seen)
    yield from _calls(seen)


def _asked(before: model.WaitSnapshot) -> Iterator[Wait]:
    for request in before.requests:
        text = (
            f"{request.by or 'somebody'} has asked it to {request.kind.value}, and it has not yet"
        )
        yield Wait(code="asked", text=text, since=request.at)


def _lost(before: model.WaitSnapshot) -> Iterator[Wait]:
    run, lease = before.flow_run, before.lease
    under_way = run.state.type not in {StateType.SCHEDULED, StateType.PAUSED}
    if before.dispatch is not None or lease is None or not under_way:
        return
    if lease.expires_at > before.at:
        return
    name = short_id(run.parent_id) if run.parent_id else run.short_name
    text = (
        f"process {lease.pid} on host {lease.host!r}, which drives it, has given no sign of life "
        f"since {_moment(lease.renewed_at)}"
    )
    changes = (
        Change(text="go on with it here", command=f"raflow resume {name}"),
        Change(text="record that it crashed", command=f"raflow reap {name}"),
    )
    yield Wait(code="lost", text=text, since=lease.renewed_at, changes=changes)


def _questions(before: model.WaitSnapshot) -> Iterator[Wait]:
    for question in before.questions:
        who = " or ".join(question.assignees) or "anybody"
        text = f"{question.title!r} waits for an answer of {who}"
        if question.expires_at is not None:
            text += f"; without one its default counts from {_moment(question.expires_at)}"
        command = f"raflow input answer {before.flow_run.short_name} {question.number}"
        answer = Change(text="answer it", command=command)
        yield Wait(code="input", text=text, since=question.asked_at, changes=(answer,))


def _own_state(before: model.WaitSnapshot) -> Iterator[Wait]:
    """Return what the state of the run says."""
    run = before.flow_run
    state, name = run.state, run.short_name
    match state.name:
        case StateName.PAUSED:
            change = Change(text="let it go on", command=f"raflow unpause {name}")
            text = state.reason or "it is paused"
            yield Wait(code="paused", text=text, since=state.at, changes=(change,))
        case StateName.SUSPENDED:
            root = short_id(run.parent_id) if run.parent_id else name
            change = Change(text="let it go on", command=f"raflow resume {root}")
            text = f"it is suspended{': ' if state.reason else ''}{state.reason}"
            yield Wait(code="suspended", text=text, since=state.at, changes=(change,))
        case StateName.AWAITING_RETRY if before.dispatch is None:
            text = state.reason or state.message or "it is tried again after a while"
            yield Wait(code="retry_delay", text=text, since=state.at)
        case StateName.CANCELLING:
            text = "it is being cancelled, and calls of it have not ended yet"
            yield Wait(code="cancelling", text=text, since=state.at)
        case StateName.RUNNING | StateName.RETRYING if state.reason:
            yield Wait(code="backend", text=state.reason, since=state.at)
        case _:
            return


# --- Of its calls ---------------------------------------------------------------------------------


def _limits(seen: model.WhySnapshot) -> Iterator[Wait]:
    run = seen.waits.flow_run
    me, of_run = run.id, f" of run {run.name}"
    for state in seen.limits:
        name = state.limit.name
        mine = [waiter for waiter in state.waiters if waiter.flow_run_id == me]
        first = state.waiters.index(mine[0])
        taken = sum(holder.amount for holder in state.holders)
        held = _listed([holder.label for holder in state.holders])
        text = f"limit {name!r} has {taken} of {_count(state.limit.slots, 'slot')} taken"
        text += f", by {held}" if held else ""
        text += f"; {_count(first, 'other')} came before" if first else ""
        changes = [
            Change(text="give the limit more", command=f"raflow limits set {name} SLOTS"),
            *(
                Change(text="or end who holds it", command=f"raflow cancel {short_id(holder)}")
                for holder in _others(state, me)[:1]
            ),
        ]
        yield Wait(
            code="limit",
            text=text,
            since=min(waiter.since for waiter in mine),
            holders=tuple(_others(state, me)),
            changes=tuple(changes),
            calls=tuple(waiter.label.removesuffix(of_run) for waiter in mine[:NAMED]),
            count=len(mine),
        )


def _others(state: model.LimitState, me: str) -> list[str]:
    """Return the runs that hold a limit, without the one that asks."""
    return sorted({holder.flow_run_id for holder in state.holders} - {me})


def _calls(seen: model.WhySnapshot) -> Iterator[Wait]:
    """Return what calls wait for by what they say themselves."""
    by_limit = bool(seen.limits)
    groups: dict[tuple[str, str], list[model.TaskRun]] = {}
    for call in (*seen.calls, *(call for call in seen.running if call.state.reason)):
        if by_limit and call.state.name is StateName.AWAITING_SLOT:
            continue  # the limit tells more
        text = call.state.reason or call.state.message
        groups.setdefault((_code(call.state.name), text), []).append(call)
    for (code, text), calls in groups.items():
        yield Wait(
            code=code,
            text=text,
            since=min(call.state.at for call in calls),
            calls=tuple(call.label for call in calls[:NAMED]),
            count=len(calls),
        )


def _code(name: StateName) -> str:
    match name:
        case StateName.AWAITING_RETRY:
            return "retry_delay"
        case StateName.AWAITING_SLOT:
            return "limit"
        case _:
            return "backend"


def _knows_why(call: model.TaskRun) -> bool:
    return bool(call.state.reason) or call.state.name is StateName.AWAITING_RETRY


def _notes(completed: Iterable[model.TaskRun]) -> Iterator[model.CallNote]:
    groups: dict[tuple[StateName, str], list[str]] = {}
    for call in completed:
        if call.state.name is StateName.CACHED:
            said = call.state.reason or call.state.message
            text = said or "the value was there already"
        elif call.state.name is StateName.RECOVERED:
            text = f"attempt {call.attempts} completed, those before did not"
        else:
            continue
        groups.setdefault((call.state.name, text), []).append(call.label)
    for (name, text), labels in groups.items():
        yield model.CallNote(state=name, text=text, calls=tuple(labels[:NAMED]), count=len(labels))


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return f"{', '.join(labels[:3])}{more}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"
