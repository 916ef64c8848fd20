"""How a flow run stands: whether anybody drives it, what it waits for, and what to do about it."""

from __future__ import annotations

from raflow._util import short_id
from raflow.model import FlowRun, StateName, StateType, Wait
from raflow.runtime import Fate, Sighting, needs_a_process, sight
from raflow.service import waits
from raflow.store import Store


def lost(store: Store, run: FlowRun) -> Sighting | None:
    """Return what is known of the process of a run that is under way without one; None: it has."""
    sighting = sight(store, run) if needs_a_process(run) else None
    if sighting is None or sighting.fate is Fate.ALIVE:
        return None
    # A run of a deployment is found and given to another worker.
    return None if run.origin is not None and store.work.dispatch(run.id) else sighting


def why(store: Store, run: FlowRun, *, lost: Sighting | None) -> str:
    """Return in a few words why a flow run that is not over does not go on; empty if it does."""
    if found := waits_for(store, run):
        return "; ".join(map(in_words, found))
    if lost is not None:
        reap = f"raflow reap {root_name(run)}"
        then = f"`{resume_command(run)}` goes on with it, `{reap}` records that it crashed"
        return f"{lost.words}. {then}"
    if run.state.type is not StateType.PAUSED:
        return run.state.reason
    if "`raflow " in run.state.reason:
        return run.state.reason
    return ": ".join(filter(None, (run.state.reason, f"`{way_on(run)}`")))


def waits_for(store: Store, run: FlowRun) -> tuple[Wait, ...]:
    """Return why no worker has begun a run of a deployment, or goes on with it; () if one does."""
    goes_on = run.state.type in {StateType.RUNNING, StateType.COMPLETED}
    if run.origin is None or goes_on or store.work.dispatch(run.id) is None:
        return ()
    return waits(store.work.snapshot(run.id))


def in_words(wait: Wait) -> str:
    """Return what a run waits for, and the commands that change that."""
    commands = [f"`{change.command}`" for change in wait.changes if change.command]
    return ": ".join([wait.text, *commands])


def way_on(run: FlowRun, *, abandoned: bool = False) -> str:
    """Return the command that lets a flow run go on; empty if there is none."""
    if abandoned or run.state.name is StateName.SUSPENDED:
        return resume_command(run)
    name = run.state.name
    if name is StateName.PAUSED:
        return f"raflow unpause {run.short_name}"
    if name is StateName.AWAITING_INPUT:
        return f"raflow input ls --run {run.short_name}"
    failed = run.state.is_final and run.state.type not in {StateType.COMPLETED, StateType.SKIPPED}
    return resume_command(run) if failed and run.parent_id is None else ""


def resume_command(run: FlowRun) -> str:
    """Return the command that resumes a flow run: for a subflow, the run that it belongs to."""
    return f"raflow resume {root_name(run)}"


def root_name(run: FlowRun) -> str:
    """Return the short name of a flow run: for a subflow, of the run that it belongs to."""
    return short_id(run.parent_id) if run.parent_id else run.short_name
