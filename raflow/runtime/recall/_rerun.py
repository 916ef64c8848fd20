"""Running a flow anew with what an earlier run of it has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raflow import errors
from raflow.define import Flow
from raflow.model import FlowRun, StateName
from raflow.runtime.leases import is_gone
from raflow.runtime.recall._recall import Recall
from raflow.runtime.recall._resume import check_code, check_flow, parameters_of
from raflow.runtime.recall._reuse import Reuse, Trust, to_run_again

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_CHOICES: Final = (
    "`--from TASK` (from_=) runs a task again, and all that depends on it; `--failed` "
    "(failed=True) what did not complete; `--param NAME=VALUE` (parameters=) what depends on "
    "a parameter. To run all of it again, run the flow anew."
)


class Choice(NamedTuple):
    """What of a flow run is to run again."""

    from_: Sequence[str] = ()
    """Tasks, calls and task runs by name: they, and all that depends on them."""
    failed: bool = False
    """What did not complete. That is so in any case; but it has to be said if nothing else is."""
    parameters: Mapping[str, Any] = {}
    """Parameters that are other ones now: what is called with other arguments."""

    def check(self, run: FlowRun) -> None:
        """Refuse a choice of nothing.

        Raises:
            ResumeError: Explains the choices.
        """
        if not (self.from_ or self.failed or self.parameters):
            raise errors.ResumeError(
                f"Say what of flow run {run.name!r} is to run again, by at least one of these: "
                f"{_CHOICES}"
            )


def check_rerun(
    store: RunStore,
    flow_run_id: str,
    flow: Flow[..., Any],
    choice: Choice,
    *,
    allow_new_code: bool,
) -> FlowRun:
    """Return the flow run, if it can be rerun with this flow.

    Raises:
        NotFoundError: No such flow run was recorded.
        ResumeError: It is not a run of the flow, or of another version of it; it is suspended, or a
            subflow; or nothing was chosen.
        RunIsAliveError: It is still going on.
    """
    run = store.find_flow_run(flow_run_id)
    check_flow(run, flow, "rerun")
    choice.check(run)
    if run.state.name is StateName.SUSPENDED:
        raise errors.ResumeError(
            f"Flow run {run.name!r} is suspended, and not over. Let it go on with `raflow resume "
            f"{run.short_name}`, or end it with `raflow cancel {run.short_name}`."
        )
    if not run.state.is_final and store.leases.is_alive(run.id):
        lease = store.leases.get(run.id)
        if lease is None or not is_gone(lease):
            raise errors.RunIsAliveError(
                f"Flow run {run.name!r} is still going on, so what it will leave is not known. "
                f"Wait for it, or end it with `raflow cancel {run.short_name}`.",
                flow_run_id=run.id,
            )
    check_code(run, flow, allow_new_code=allow_new_code)
    return run


def reuse_of(store: RunStore, run: FlowRun, flow: Flow[..., Any], choice: Choice) -> Reuse:
    """Return what a rerun takes from a run.

    Raises:
        NotFoundError: The run has no call of a name that was given.
        ResumeError: What failed is to run again, and nothing did.
    """
    reuse = _reuse(store, run, flow, choice.from_, same_parameters=not choice.parameters)
    if choice == Choice(failed=True) and run.fingerprint == flow.fingerprint() and reuse.is_done:
        raise errors.ResumeError(
            f"Nothing of flow run {run.name!r} failed: it would run again with nothing to do. "
            f"Choose something else than --failed: {_CHOICES}"
        )
    return reuse


def reuse_again(store: RunStore, rerun: FlowRun, flow: Flow[..., Any]) -> Reuse | None:
    """Return what a rerun that goes on takes from the run that it repeats; None: it is no rerun.

    Nothing is taken either if the record does not have that run any more.
    """
    if rerun.rerun_of is None or rerun.parent_id is not None:
        return None
    try:
        run = store.find_flow_run(rerun.rerun_of)
    except errors.NotFoundError:
        return None
    same = _digest(run) == _digest(rerun) != ""
    return _reuse(store, run, flow, rerun.rerun_from, same_parameters=same)


def _digest(run: FlowRun) -> str:
    return run.inputs.digest if run.inputs else ""


def _reuse(
    store: RunStore,
    run: FlowRun,
    flow: Flow[..., Any],
    names: Sequence[str],
    *,
    same_parameters: bool,
) -> Reuse:
    recall = Recall(store, run.id)
    again = to_run_again(recall, run, names)
    same_code = run.fingerprint == flow.fingerprint()
    trust = Trust(same_code=same_code, same_parameters=same_parameters)
    return Reuse(recall, run, again, trust, tuple(names))


def new_parameters(
    run: FlowRun, flow: Flow[..., Any], choice: Choice, signing_key: bytes
) -> Mapping[str, Any]:
    """Return the parameters of the rerun of a run.

    Raises:
        ParameterError: Those that were given do not fit.
        ResumeError: Those of the run could not be kept.
    """
    before = parameters_of(run, signing_key)
    if not choice.parameters:
        return before
    return flow.validate_arguments({**before, **choice.parameters})
