"""Whether a flow run that failed is followed by another."""

from __future__ import annotations

import random

from raflow.model import FlowRun, RetryPolicy, StateType


class FlowRetries:
    """Counts the runs of one call of a flow.

    Each further run is a flow run of its own with the trigger `retry`, whose first state names the
    run before it. It starts from the beginning.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        """Begin with the first run."""
        self._policy = policy
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._used = 0
        self.reason = ""
        """Why the next run exists; empty for the first."""

    def delay_after(self, run: FlowRun) -> float | None:
        """Return the seconds to wait before the run that follows this one; None if none does."""
        if run.state.type is not StateType.FAILED or self._used >= self._policy.retries:
            return None
        self._used += 1
        self.reason = f"retry {self._used} of {self._policy.retries}, after {run.name} ({run.id})"
        return self._policy.delay_before(self._used, self._rng)
