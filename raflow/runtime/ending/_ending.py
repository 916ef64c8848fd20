"""How a flow run ended: from what happened in it to its final state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from raflow import errors
from raflow.model import FlowRunEvent, StateName
from raflow.runtime.calls import RunOutcome

TIME_IS_UP: Final = "the time limit of the flow is over"
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The final state of a flow run, and what it raises."""

    event: FlowRunEvent
    message: str = ""
    error: BaseException | None = None


def ending(
    *,
    flow: str,
    body_error: BaseException | None,
    cancelled: bool,
    cancel_reason: str,
    unhandled: Sequence[RunOutcome],
    resumed: bool = False,
) -> Ending:
    """Decide the final state.

    A cancelled run is CANCELLED (or TIMED_OUT), whatever else happened. Otherwise it is FAILED if
    the body raised, or if a failure of a task run was handled by nobody (see
    `raflow.engine.Engine`); otherwise COMPLETED, or RECOVERED if the run was resumed.
    """
    if cancelled and cancel_reason == TIME_IS_UP:
        message = f"Flow {flow!r} was ended: {cancel_reason}."
        return Ending(
            event=FlowRunEvent.TIMED_OUT,
            message=message,
            error=errors.FlowRunTimedOutError(message),
        )
    if cancelled:
        message = f"Flow {flow!r} was cancelled: {cancel_reason}."
        return Ending(
            event=FlowRunEvent.CANCELLED,
            message=message,
            error=errors.FlowRunCancelledError(message),
        )
    if body_error is not None:
        message = f"{type(body_error).__name__}: {body_error}".partition("\n")[0]
        return Ending(event=FlowRunEvent.FAILED, message=message, error=body_error)
    if unhandled:
        return _unhandled(flow, unhandled)
    return Ending(event=FlowRunEvent.RECOVERED if resumed else FlowRunEvent.COMPLETED)


def _unhandled(flow: str, outcomes: Sequence[RunOutcome]) -> Ending:
    roots = [o for o in outcomes if o.state.name is not StateName.UPSTREAM_FAILED] or list(outcomes)
    named = ", ".join(outcome.label for outcome in roots[:_NAMED])
    more = f" and {len(roots) - _NAMED} more" if len(roots) > _NAMED else ""
    behind = len(outcomes) - len(roots)
    then = f"; {behind} more could not run because of it" if behind else ""
    message = f"Flow {flow!r} failed: {named}{more} did not complete{then}."
    error = errors.FlowRunFailedError(message)
    error.__cause__ = roots[0].failure()
    return Ending(event=FlowRunEvent.FAILED, message=message, error=error)
