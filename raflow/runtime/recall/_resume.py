"""Going on with a flow run in a new process."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from raflow import errors
from raflow._util import crash_point, short_id
from raflow.define import Flow
from raflow.model import FlowRun, RequestKind, StateType
from raflow.results import read_result
from raflow.runtime.leases import (
    LEASE_SECONDS,
    end_left_behind,
    needs_a_process,
    sight,
    this_process,
)
from raflow.runtime.recall._recall import Recall
from raflow.runtime.recall._reuse import ChangedRecall

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

EARLIER_CODE: Final = "earlier code"
"""Under which a run that goes on with changed code has the fingerprint that it had before among its
versions: parts of its record may be of that code."""
_DONE: Final = "It completed, so there is nothing to go on with. Run the flow again instead."


class Resumed(NamedTuple):
    """A flow run that this process goes on with."""

    flow_run: FlowRun
    """As it was recorded, with this process in it."""
    recall: Recall


def resume_root(
    store: RunStore,
    flow_run_id: str,
    flow: Flow[..., Any],
    *,
    force: bool,
    allow_new_code: bool,
    taken: int | None = None,
) -> Resumed:
    """Take over a flow run that nobody drives any more.

    Args:
        store: The record.
        flow_run_id: The run.
        flow: Its flow.
        force: Whether to take it from a process that is alive.
        allow_new_code: Whether its code may have changed since.
        taken: The number of this process among those of the run, if it has the run already.

    Raises:
        NotFoundError: No such flow run was recorded.
        ResumeError: It is not a run of the flow, or of another version of it; or it completed; or
            it is a subflow.
        RunIsAliveError: Another process drives it.
        FencedError: Another process has taken it from this one.
    """
    run = check_resumable(store, flow_run_id, flow, allow_new_code=allow_new_code)
    return _take_over(store, run, flow, force=force, taken=taken)


def check_resumable(
    store: RunStore, flow_run_id: str, flow: Flow[..., Any], *, allow_new_code: bool
) -> FlowRun:
    """Return the flow run, if it can be resumed with this flow; see `resume_root`."""
    run = store.find_flow_run(flow_run_id)
    if run.state.type is StateType.COMPLETED:
        raise errors.ResumeError(f"Flow run {run.name!r} cannot be resumed. {_DONE}")
    check_flow(run, flow, "resume")
    check_code(run, flow, allow_new_code=allow_new_code)
    return run


def resume_child(store: RunStore, run: FlowRun, flow: Flow[..., Any]) -> Resumed | None:
    """Take over a child run; None if it is better run again.

    Its parent's process is the only one that may drive it, and that is this one. What a child that
    has completed returned is its parent's to read.
    """
    if run.state.type is StateType.COMPLETED or run.flow != flow.name:
        return None
    return _take_over(store, run, flow, force=True)


def parameters_of(run: FlowRun, signing_key: bytes) -> Mapping[str, Any]:
    """Return the parameters that a flow run was started with.

    Raises:
        ResumeError: They could not be kept when it was.
        ResultStorageError: They cannot be read.
    """
    if run.inputs is None:
        raise errors.ResumeError(
            f"The parameters of flow run {run.name!r} could not be kept when it was started, so no "
            "other process can go on with it. Pass what JSON or pickle can carry."
        )
    return cast("Mapping[str, Any]", read_result(run.inputs, signing_key=signing_key))


def check_flow(run: FlowRun, flow: Flow[..., Any], verb: str) -> None:
    """Refuse a run that cannot be resumed, or rerun, by itself or with this flow.

    Raises:
        ResumeError: It is a subflow, or a run of another flow.
    """
    if run.parent_id is not None:
        raise errors.ResumeError(
            f"Flow run {run.name!r} is a subflow: {verb} the run that it belongs to, "
            f"{short_id(run.parent_id)!r}."
        )
    if run.flow != flow.name:
        raise errors.ResumeError(
            f"Flow run {run.name!r} is one of {run.flow!r}, not of {flow.name!r}. "
            f"{verb.capitalize()} it with its own flow."
        )


def check_code(run: FlowRun, flow: Flow[..., Any], *, allow_new_code: bool) -> None:
    """Refuse changed code, unless that is allowed.

    Raises:
        ResumeError: Names both versions.
    """
    now = flow.fingerprint()
    if now != run.fingerprint and not allow_new_code:
        raise errors.ResumeError(
            f"The code of flow {flow.name!r} has changed since run {run.name!r} began "
            f"({run.fingerprint[:8]}, now {now[:8]}), so what is recorded may not be what it would "
            "compute. Go back to that code, or say --allow-new-code (allow_new_code=True).",
            before=run.fingerprint,
            now=now,
        )


def _take_over(
    store: RunStore, run: FlowRun, flow: Flow[..., Any], *, force: bool, taken: int | None = None
) -> Resumed:
    sighting = sight(store, run, taken=taken is not None)
    crash_point("resume.before_taking")
    if taken is None:
        incarnation = store.leases.begin_incarnation(
            run.id,
            **this_process(),
            seconds=LEASE_SECONDS,
            force=force,
            gone=sighting.over,
        )
    else:
        incarnation = taken
        store.leases.renew(run.id, taken, seconds=LEASE_SECONDS, **this_process())
    crash_point("resume.after_taking")
    if needs_a_process(run):
        # What its tasks are still doing is of no use to anybody, and they are to begin anew.
        end_left_behind(store, run, sighting)
    for asked in store.requests.of(run.id, open_only=True):
        if asked.kind is RequestKind.SUSPEND:  # and whoever resumes it wants it to go on
            store.requests.answered(asked.id, "its process died first, and another went on")
    # Read again: whoever drove it may have written until a moment ago.
    run = store.find_flow_run(run.id)
    versions = dict(run.versions)
    if run.fingerprint != flow.fingerprint():
        versions[EARLIER_CODE] = run.fingerprint[:8]
    run = dataclasses.replace(
        run,
        fingerprint=flow.fingerprint(),
        versions=versions,
        incarnation=incarnation,
        host=socket.gethostname(),
        pid=os.getpid(),
        ended_at=None,
        error=None,
        result=None,
    )
    return Resumed(run, recall_of(store, run))


def recall_of(store: RunStore, run: FlowRun) -> Recall:
    """Return the past of a flow run that goes on."""
    if EARLIER_CODE in run.versions:
        return ChangedRecall(store, run)
    return Recall(store, run.id)
