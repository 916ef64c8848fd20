"""Entrances for flow runs of deployments, which a worker has taken for this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raflow import config
from raflow.define import Flow
from raflow.model import FlowRun, RequestKind, StateName
from raflow.runtime._entry import chosen_settings, opened_scope, resume_flow
from raflow.runtime.attempts import Attempts, Execution, FlowOutcome, Origin
from raflow.runtime.ending import cancel_on_record, reap
from raflow.runtime.record import lend_store

if TYPE_CHECKING:
    from raflow.model import Claim


def run_claimed(
    flow: Flow[..., Any],
    claim: Claim,
    *,
    settings: config.Settings | None = None,
    entrypoint: str = "",
) -> FlowOutcome:
    """Begin, on this thread, a flow run that a worker has taken.

    That it runs is on record before the first line of its body. So a run of which that is not on
    record has done nothing, and can be given to another worker.

    Args:
        flow: The flow.
        claim: What the worker was given: work of the kind `run`.
        settings: Default: from the environment.
        entrypoint: Where the flow was loaded from, for the record.

    Raises:
        FencedError: The run was taken from this process before it began.
        ParameterError: The parameters do not fit the flow.
        InfeasibleResourcesError: A task asks for what the backend can never offer.
        BackendError: The backend cannot start or be reached.
        StoreError: The database cannot be opened or written.
        ResultStorageError: Result storage cannot be written.
    """
    parameters = flow.validate_arguments(claim.flow_run.parameters)
    chosen = chosen_settings(flow, settings or config.load(), None, None)
    with opened_scope(flow, chosen, (), entrypoint) as scope:
        scope.store.open()
        origin = Origin(scope=scope, flow=flow, parameters=parameters, claim=claim)
        return Attempts(Execution(origin)).run()


def resume_claimed(
    flow: Flow[..., Any],
    claim: Claim,
    *,
    settings: config.Settings | None = None,
    entrypoint: str = "",
) -> FlowOutcome:
    """Go on with a flow run that a worker has taken; see `resume_flow`.

    Args:
        flow: The flow.
        claim: What the worker was given: work of the kind `resume`.
        settings: Default: from the environment.
        entrypoint: Where the flow was loaded from, for the record.

    Raises:
        FencedError: The run was taken from this process before it went on.
        ResumeError: The run cannot be resumed, or not with this code.
    """
    return resume_flow(
        flow,
        claim.flow_run.id,
        taken=claim.incarnation,
        settings=settings,
        entrypoint=entrypoint,
    )


def end_claimed(
    flow: Flow[..., Any], claim: Claim, *, settings: config.Settings | None = None
) -> FlowRun:
    """Bring a flow run to its end that a worker has taken for that; see `reap`.

    Args:
        flow: The flow, whose hooks are called.
        claim: What the worker was given: work of the kind `end`.
        settings: Default: from the environment.

    Returns:
        The run as it is recorded now: Crashed, or Cancelled if it was suspended or being cancelled.

    Raises:
        FencedError: The run was taken from this process.
    """
    settings = settings or config.load()
    run, taken, results = claim.flow_run, claim.incarnation, settings.results
    with lend_store(settings, at_once=True) as lent:
        store = lent.open()
        asked = [
            one
            for one in store.requests.of(run.id, open_only=True)
            if one.kind is RequestKind.CANCEL
        ]
        if asked or run.state.name is StateName.SUSPENDED:
            reason = f"asked by {asked[0].by}" if asked else "it is not to go on"
            return cancel_on_record(
                store, run, flow, reason=reason, results=results, taken=taken
            ).flow_run
        return reap(store, run, flow, results=results, taken=taken).flow_run
