"""`raflow cancel`, `pause`, `unpause` and `suspend`: ask something of a run that is under way."""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from raflow import errors
from raflow.cli._errors import ExitCode
from raflow.cli._options import RunName

if TYPE_CHECKING:
    from raflow.model import FlowRun, RequestKind, RunRequest
    from raflow.store import Store

WAIT_SECONDS: Final = 10.0
"""Also how long a run is a process's own after its last sign of life."""
_LOOK_SECONDS: Final = 0.1

NoWait: TypeAlias = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait until the run has taken the request.")
]


class _Fate(Enum):
    """What became of a request."""

    TAKEN = auto()
    OVER = auto()
    """The run is final."""
    NOBODY = auto()
    """No process drives the run."""
    OPEN = auto()


def cancel(
    run: RunName,
    message: Annotated[str, typer.Option("--message", "-m", help="Why, for the record.")] = "",
    no_wait: NoWait = False,
) -> None:
    """Cancel a flow run: nothing new starts, and what runs is asked to stop, then killed.

    A run that is suspended, or whose process is gone, is recorded as Cancelled.
    """
    from raflow.model import RequestKind

    _ask(run, RequestKind.CANCEL, message=message, wait=not no_wait)


def pause(run: RunName, no_wait: NoWait = False) -> None:
    """Pause a flow run: no task starts any more, until `raflow unpause`. Its process stays."""
    from raflow.model import RequestKind

    _ask(run, RequestKind.PAUSE, wait=not no_wait)


def unpause(run: RunName, no_wait: NoWait = False) -> None:
    """Let a flow run go on that is paused."""
    from raflow.model import RequestKind

    _ask(run, RequestKind.UNPAUSE, wait=not no_wait)


def suspend(run: RunName, no_wait: NoWait = False) -> None:
    """Suspend a flow run: once what runs has ended, its process does, until `raflow resume`."""
    from raflow.model import RequestKind

    _ask(run, RequestKind.SUSPEND, wait=not no_wait)


def _ask(text: str, kind: RequestKind, *, wait: bool, message: str = "") -> None:
    from raflow._util import person
    from raflow.cli import _console, _runs
    from raflow.model import RequestKind

    by = person()
    with _runs.found(text) as (store, run):
        if run.state.is_final:
            raise _over(run, kind)
        if kind is RequestKind.CANCEL:
            request = store.work.cancel(run.id, by=by, message=message)
        else:
            request = store.requests.ask(run.id, kind, by=by, message=message)
        fate = _wait(store, request, WAIT_SECONDS if wait else 0.0)
        if fate is _Fate.NOBODY and kind is RequestKind.CANCEL:
            said, code = _cancelled(store, run, request), ExitCode.OK
        elif fate is _Fate.NOBODY:
            store.requests.answered(request.id, "no process drove the run")
            raise _nobody(store.find_flow_run(run.id), kind)
        else:
            said, code = _told(store, store.find_flow_run(run.id), request, fate, wait=wait)
        _console.out().print(said, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _wait(store: Store, request: RunRequest, seconds: float) -> _Fate:
    deadline = time.monotonic() + seconds
    while True:
        # In this order: a run that ends gives its lease back, and answers what was asked of it.
        is_alive = store.leases.is_alive(request.flow_run_id)
        waiting = store.requests.of(request.flow_run_id, open_only=True)
        if store.find_flow_run(request.flow_run_id).state.is_final:
            return _Fate.OVER
        if all(one.id != request.id for one in waiting):
            return _Fate.TAKEN
        if not is_alive and not _worker_comes(store, request):
            return _Fate.NOBODY
        if time.monotonic() >= deadline:
            return _Fate.OPEN
        time.sleep(_LOOK_SECONDS)


def _worker_comes(store: Store, request: RunRequest) -> bool:
    """Whether a run without a process is one that a worker begins, goes on with, or ends."""
    from raflow.model import Stage

    place = store.work.dispatch(request.flow_run_id)
    return place is not None and place.stage is not Stage.PARKED


def _cancelled(store: Store, run: FlowRun, request: RunRequest) -> str:
    from raflow import config, runtime
    from raflow.cli import _format, _reap, _standing

    if run.parent_id is not None:
        store.requests.answered(request.id, "no process drove the run")
        raise errors.RunHasEndedError(
            f"Flow run {run.name!r} is a subflow, and no process drives it any more. Cancel the "
            f"run that it belongs to: `raflow cancel {_standing.root_name(run)}`."
        )
    reason = f"cancel asked by {request.by}"
    if request.message:
        reason += f": {request.message}"
    flow, without_hooks = _reap.flow_of(store, run)
    done = runtime.cancel_on_record(store, run, flow, reason=reason, results=config.load().results)
    told = f"Flow run {run.name!r} is recorded as Cancelled. No process drove it any more."
    if done.ended:
        told += f" {_format.count(done.ended, 'process', 'processes')} that it left behind ended."
    if without_hooks:
        told += f" Its hooks were not called: {without_hooks}."
    return f"{told} If that was a mistake: `{_standing.resume_command(run)}`."


def _over(run: FlowRun, kind: RequestKind) -> errors.RunHasEndedError:
    from raflow.cli import _standing
    from raflow.model import RequestKind, StateType

    told = f"Flow run {run.name!r} is over ({run.state.name.value}), so nobody can {kind.value} it."
    if run.state.type is StateType.CRASHED and kind is RequestKind.CANCEL:
        told = (
            f"Flow run {run.name!r} is over (Crashed): its process is gone, so there is nothing to "
            "cancel."
        )
    if run.parent_id is None and run.state.type is not StateType.COMPLETED:
        told += f" `{_standing.resume_command(run)}` goes on with it."
    if run.parent_id is None and run.state.type is StateType.CRASHED:
        told += f" `raflow reap --undo {run.short_name}` undoes what it has done (on_rollback)."
    return errors.RunHasEndedError(told, flow_run_id=run.id, state=run.state.name.value)


def _nobody(run: FlowRun, kind: RequestKind) -> errors.RunHasEndedError:
    from raflow.cli import _standing
    from raflow.model import StateName

    suspended = run.state.name is StateName.SUSPENDED
    why = "it is suspended" if suspended else "its process is gone"
    return errors.RunHasEndedError(
        f"No process drives flow run {run.name!r} any more, so nobody can {kind.value} it: {why}. "
        f"Go on with it: `{_standing.resume_command(run)}`.",
        flow_run_id=run.id,
    )


def _told(
    store: Store, run: FlowRun, request: RunRequest, fate: _Fate, *, wait: bool
) -> tuple[str, ExitCode]:
    from raflow.model import RequestKind, StateType

    kind, what, name = request.kind, f"Flow run {run.name!r}", run.short_name
    if fate is _Fate.OVER and run.started_at is None:
        return f"{what} had not begun. It is recorded as {run.state.name.value}.", ExitCode.OK
    if fate is _Fate.OVER:
        done = kind is RequestKind.CANCEL and run.state.type is StateType.CANCELLED
        code = ExitCode.OK if done else ExitCode.RUN_FAILED
        return f"{what} is over: {run.state.name.value}.", code
    if fate is _Fate.OPEN and not wait:
        return f"Asked {what[0].lower()}{what[1:]} to {kind.value}.", ExitCode.OK
    if fate is _Fate.OPEN:
        lease, place = store.leases.get(run.id), store.work.dispatch(run.id)
        who = f"process {lease.pid} on host {lease.host!r}" if lease else "its process"
        who = f"no worker of pool {place.pool!r} has" if place and not lease else f"{who} has not"
        told = f"{what} was asked to {kind.value}, but {who} taken that within"
        return f"{told} {WAIT_SECONDS:.0f} s. The request stands.", ExitCode.RUN_FAILED
    if kind is RequestKind.UNPAUSE:
        return _unpaused(store, run, request)
    done_by_kind = {
        RequestKind.CANCEL: "is being cancelled: nothing new starts, and what runs is ended.",
        RequestKind.PAUSE: "is paused: no task starts any more, and what runs goes on to its end. "
        f"`raflow unpause {name}` lets it go on.",
        RequestKind.SUSPEND: "is being suspended: its process ends once what runs has ended. "
        f"`raflow resume {name}` goes on with it then.",
    }
    return f"{what} {done_by_kind[kind]}", ExitCode.OK


def _unpaused(store: Store, run: FlowRun, request: RunRequest) -> tuple[str, ExitCode]:
    from raflow.model import BEING_SUSPENDED, NOT_PAUSED, StateName

    what = f"Flow run {run.name!r}"
    outcome = next((r.outcome for r in store.requests.of(run.id) if r.id == request.id), "")
    if outcome == BEING_SUSPENDED:
        told = f"{what} is being suspended: once what runs has ended, so does its process."
        return f"{told} `raflow resume {run.short_name}` goes on with it then.", ExitCode.RUN_FAILED
    awaited = run.state.name is StateName.AWAITING_INPUT
    waits = f" It waits for input: `raflow input ls --run {run.short_name}`." if awaited else ""
    if outcome == NOT_PAUSED:
        return f"{what} is not paused, so nothing has changed.{waits}", ExitCode.OK
    return f"{what} {'is not paused any more' if awaited else 'goes on'}.{waits}", ExitCode.OK
