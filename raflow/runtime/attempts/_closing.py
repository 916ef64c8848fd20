"""The end of an attempt of a flow run: from what has become of its calls to its final state."""

from __future__ import annotations

from typing import Any, Final

from raflow import errors
from raflow._util import crash_point
from raflow.model import (
    FlowRunEvent,
    ResultInfo,
    ResultPolicy,
    State,
    StateName,
    TaskRunKey,
    next_flow_run_state,
)
from raflow.runtime.attempts._origin import Origin
from raflow.runtime.attempts._parts import Parts
from raflow.runtime.attempts._retries import FlowRetries, Retry
from raflow.runtime.attempts._scope import FlowOutcome
from raflow.runtime.calls import error_info
from raflow.runtime.driver import SUSPENDED
from raflow.runtime.ending import (
    UNDOING,
    Ending,
    ending,
    remove_litter,
    roll_back,
    rolled_back,
)

_BODY: Final = TaskRunKey(-1)
_CHILDREN_SECONDS: Final = 5.0
"""How long the children of a run whose backend has died are waited for: they end as it does."""


class Closing:
    """Brings an attempt to its end, once its run has settled."""

    def __init__(self, origin: Origin, parts: Parts, retries: FlowRetries) -> None:
        """Prepare it."""
        self._origin = origin
        self._scope = origin.scope
        self._flow = origin.flow
        self._driver = parts.driver
        self._parts = parts
        self._retries = retries
        self.planned: Retry | None = None
        """The attempt that follows."""

    def finish(self, value: Any, error: BaseException | None) -> FlowOutcome:
        """Give back what the attempt holds, decide how it ends, and put that on record."""
        self._parts.steward.close()
        self._driver.close()
        broken = self._driver.settled.exception()
        if isinstance(broken, errors.BackendError | errors.FencedError):
            # This process may be about to end, before they have ended what they have started.
            self._parts.children.wait(_CHILDREN_SECONDS)
        if isinstance(broken, errors.FencedError):
            return FlowOutcome(flow_run=self._driver.history.flow_run, error=broken)
        self._parts.desk.close()
        if broken is None and self._driver.settled.result() is SUSPENDED:
            return self._leave()
        end = self._ending(error)
        result = None
        if end.error is None:
            end, result = self._keep(value, end)
        now = self._scope.clock()
        self.planned = None if self._is_lost(end) else self._retries.after(end.event, now)
        if self.planned is not None:
            return self._wait_for(self.planned, end, now)
        self._remove_litter(result)
        self._roll_back(end)
        return self._enter_final_state(end, value, result)

    def _enter_final_state(self, end: Ending, value: Any, result: ResultInfo | None) -> FlowOutcome:
        """Put the end on record; of a run that is no subflow, it is on disk before it is told."""
        now = self._scope.clock()
        current = self._driver.history.flow_run.state.name
        name = next_flow_run_state(current, end.event)
        attempt = self._origin.retry.name if self._origin.retry else ""
        if end.error is None:
            self._driver.history.not_called(len(self._driver.entries))
        crash_point("run.before_final_state")
        self._driver.history.flow_run_entered(
            State(name=name, at=now, message=end.message or attempt),
            ended_at=now,
            error=error_info(end.error) if end.error is not None else None,
            result=result,
        )
        if self._origin.parent is None:
            self._scope.recorder.flush()
        crash_point("run.after_final_state")
        run = self._driver.history.flow_run
        return FlowOutcome(flow_run=run, value=value if result else None, error=end.error)

    def _is_lost(self, end: Ending) -> bool:
        """Tell whether the body went another way than before: it would do so again."""
        return self._origin.resumed is not None and isinstance(end.error, errors.ResumeError)

    def _wait_for(self, retry: Retry, end: Ending, now: float) -> FlowOutcome:
        """Put on record that the run has failed, and waits for its next attempt."""
        history = self._driver.history
        name = next_flow_run_state(history.flow_run.state.name, FlowRunEvent.RETRY_PLANNED)
        reason = f"{retry.name} in {retry.due - now:.3g} s"
        state = State(name=name, at=now, message=end.message, reason=reason)
        history.flow_run_entered(state, error=error_info(end.error) if end.error else None)
        self._scope.recorder.flush()
        return FlowOutcome(flow_run=history.flow_run, error=end.error)

    def _remove_litter(self, result: ResultInfo | None) -> None:
        """Remove what attempts that were broken off have stored, in earlier processes too."""
        scope, littered = self._scope, self._driver.batches.littered
        if not littered and self._origin.resumed is None:
            return
        storages = {self._parts.keeper.storage_of(policy) for policy in {ResultPolicy(), *littered}}
        scope.recorder.flush()
        remove_litter(
            scope.store.open(),
            self._driver.history.flow_run,
            storages,
            kept="" if result is None else result.url,
            look_further=self._origin.resumed is not None,
        )

    def _roll_back(self, end: Ending) -> None:
        """Undo what was done, by earlier processes of the run too, before it is said to be over."""
        scope, history = self._scope, self._driver.history
        if end.event not in UNDOING or not scope.hooks.undoes:
            return
        scope.recorder.flush()
        roll_back(
            scope.store.open(),
            self._parts.id,
            scope.hooks,
            lambda run: history.task_runs.undone(rolled_back(run, scope.clock())),
        )

    def _leave(self) -> FlowOutcome:
        """Suspend the run: another process will go on with it."""
        history, reason = self._driver.history, self._driver.pauses.suspending
        crash_point("suspend.before_state")
        state = State(name=StateName.SUSPENDED, at=self._scope.clock(), reason=reason)
        history.flow_run_entered(state)
        self._scope.recorder.flush()
        crash_point("suspend.after_state")
        run = history.flow_run
        self._scope.store.open().leases.let_go(run.id, run.incarnation)
        told = f"Flow run {run.name!r} is suspended: {reason}."
        told += f" Go on with `raflow resume {run.short_name}`."
        return FlowOutcome(flow_run=run, error=errors.FlowRunSuspendedError(told))

    def _ending(self, error: BaseException | None) -> Ending:
        broken = self._driver.settled.exception()
        if isinstance(broken, errors.BackendError):
            return Ending(event=FlowRunEvent.CRASHED, message=str(broken), error=broken)
        if broken is not None:
            message = f"raflow itself failed: {type(broken).__name__}: {broken}"
            return Ending(event=FlowRunEvent.CRASHED, message=message, error=broken)
        settled = self._driver.settled.result()
        return ending(
            flow=self._flow.name,
            body_error=error,
            cancelled=settled.cancelled,
            cancel_reason=self._driver.cancel_reason,
            unhandled=[self._driver.outcomes.told(run) for run in settled.unhandled],
            resumed=self._origin.resumed is not None,
        )

    def _keep(self, value: Any, end: Ending) -> tuple[Ending, ResultInfo | None]:
        """Keep what the flow returned, as its options say."""
        try:
            return end, self._parts.keeper.keep(
                value, self._flow.options.result, run=_BODY, attempt=1
            )
        except errors.RaflowError as error:
            message = f"The result of {self._flow.name!r} cannot be kept: {error}"
            return Ending(event=FlowRunEvent.FAILED, message=message, error=error), None
