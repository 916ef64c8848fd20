"""When a failed attempt is tried again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from raflow import errors

RetryDelay: TypeAlias = float | Sequence[float] | Callable[[int], Sequence[float]]


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return a `retry_delay_seconds` that doubles: `factor`, `2 * factor`, `4 * factor`, ...

    Args:
        backoff_factor: The first delay, in seconds.
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**n for n in range(retries)]

    return delays


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a task is tried again, and how long it waits before each try."""

    retries: int = 0
    """Further attempts after a failure of user code (an exception or a time-out). Default: none."""
    delays: tuple[float, ...] = ()
    """Seconds before each further attempt; the last one repeats. Empty: at once."""
    jitter_factor: float = 0.0
    """Each delay is stretched by a random factor between 1 and 1 + this."""
    crash_retries: int = 0
    """Further attempts after the process, the node or the memory was lost. Default: none."""

    @classmethod
    def of(
        cls,
        *,
        retries: int | None = None,
        retry_delay_seconds: RetryDelay | None = None,
        retry_jitter_factor: float | None = None,
        crash_retries: int | None = None,
    ) -> RetryPolicy:
        """Check what a user wrote.

        Raises:
            DefinitionError: A number is negative, or the delays do not come out as numbers.
        """
        count = _checked_count("retries", retries)
        jitter = float(retry_jitter_factor or 0)
        if jitter < 0:
            raise errors.DefinitionError(
                f"retry_jitter_factor={retry_jitter_factor!r} is negative. Give zero or more."
            )
        return cls(
            retries=count,
            delays=_checked_delays(retry_delay_seconds, count),
            jitter_factor=jitter,
            crash_retries=_checked_count("crash_retries", crash_retries),
        )

    def delay_before(self, retry: int, rng: random.Random) -> float:
        """Return the seconds to wait before the `retry`-th further attempt, counted from 1."""
        if not self.delays:
            return 0.0
        base = self.delays[min(retry, len(self.delays)) - 1]
        return base * (1 + rng.random() * self.jitter_factor)


def _checked_count(name: str, value: int | None) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise errors.DefinitionError(f"{name}={value!r} is not a count. Give a whole number >= 0.")
    return value


def _checked_delays(spec: RetryDelay | None, retries: int) -> tuple[float, ...]:
    if spec is None:
        return ()
    listed = spec(retries) if callable(spec) else spec
    try:
        delays = tuple(float(d) for d in (listed if isinstance(listed, Sequence) else [listed]))
    except (TypeError, ValueError):
        delays = (-1.0,)
    if any(delay < 0 for delay in delays):
        raise errors.DefinitionError(
            f"retry_delay_seconds={spec!r} gives {listed!r}. Give seconds as a number >= 0, a list "
            "of them, or a function from the number of retries to such a list."
        )
    return delays
