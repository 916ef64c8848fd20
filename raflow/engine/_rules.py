"""Trigger rules: from the states of what a task run waits for to what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from raflow.model import TaskOptions, TriggerRule


class Verdict(Enum):
    """What becomes of a task run that waits."""

    WAIT = auto()
    RUN = auto()
    SKIP = auto()
    UPSTREAM_FAILED = auto()


@dataclass(slots=True)
class Upstream:
    """How many of the things a task run waits for stand where."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    """FAILED, CRASHED or CANCELLED."""
    skipped: int = 0

    @property
    def done(self) -> int:
        """How many are final."""
        return self.succeeded + self.failed + self.skipped

    @property
    def all_done(self) -> bool:
        """Whether all are final."""
        return self.done == self.total

    def add(self, other: Upstream) -> None:
        """Count what another counted, too."""
        self.total += other.total
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.skipped += other.skipped


def decide(rule: TriggerRule, upstream: Upstream, setups: Upstream | None = None) -> Verdict:
    """Apply a trigger rule; a task run that depends on nothing runs, whatever its rule.

    Args:
        rule: The rule.
        upstream: All that the task run waits for.
        setups: Those among them that set up what a teardown tears down. Default: none.
    """
    if upstream.total == 0:
        return Verdict.RUN
    verdict = _RULES[rule](upstream)
    if setups is not None and verdict is Verdict.RUN:
        return _after_setups(setups)
    return verdict


def trigger_rule(options: TaskOptions) -> TriggerRule:
    """Return the rule of the calls of a task: teardowns have one of their own."""
    return TriggerRule.ALL_DONE_SETUP_SUCCESS if options.teardown else options.trigger_rule


def _after_setups(setups: Upstream) -> Verdict:
    """Tear down if anything has been set up, or nothing needed to be."""
    if setups.succeeded or not setups.total:
        return Verdict.RUN
    return Verdict.SKIP if setups.skipped == setups.total else Verdict.UPSTREAM_FAILED


def _when_done(verdict: Callable[[Upstream], Verdict]) -> Callable[[Upstream], Verdict]:
    def rule(up: Upstream) -> Verdict:
        return verdict(up) if up.all_done else Verdict.WAIT

    return rule


def _all_success(up: Upstream) -> Verdict:
    # Decided as soon as it can no longer come true: a failure need not wait for slower neighbours.
    if up.failed:
        return Verdict.UPSTREAM_FAILED
    if up.skipped:
        return Verdict.SKIP
    return Verdict.RUN if up.all_done else Verdict.WAIT


def _all_failed(up: Upstream) -> Verdict:
    if up.succeeded or up.skipped:
        return Verdict.SKIP
    return Verdict.RUN if up.all_done else Verdict.WAIT


def _all_done_min_one_success(up: Upstream) -> Verdict:
    if up.succeeded:
        return Verdict.RUN
    return Verdict.UPSTREAM_FAILED if up.failed else Verdict.SKIP


def _all_skipped(up: Upstream) -> Verdict:
    if up.succeeded or up.failed:
        return Verdict.SKIP
    return Verdict.RUN if up.all_done else Verdict.WAIT


def _one_success(up: Upstream) -> Verdict:
    if up.succeeded:
        return Verdict.RUN
    if not up.all_done:
        return Verdict.WAIT
    return Verdict.UPSTREAM_FAILED if up.failed else Verdict.SKIP


def _one_failed(up: Upstream) -> Verdict:
    if up.failed:
        return Verdict.RUN
    return Verdict.SKIP if up.all_done else Verdict.WAIT


def _one_done(up: Upstream) -> Verdict:
    if up.succeeded or up.failed:
        return Verdict.RUN
    return Verdict.SKIP if up.all_done else Verdict.WAIT


def _none_failed(up: Upstream) -> Verdict:
    if up.failed:
        return Verdict.UPSTREAM_FAILED
    return Verdict.RUN if up.all_done else Verdict.WAIT


def _none_skipped(up: Upstream) -> Verdict:
    if up.skipped:
        return Verdict.SKIP
    return Verdict.RUN if up.all_done else Verdict.WAIT


def _none_failed_min_one_success(up: Upstream) -> Verdict:
    if up.failed:
        return Verdict.UPSTREAM_FAILED
    if not up.all_done:
        return Verdict.WAIT
    return Verdict.RUN if up.succeeded else Verdict.SKIP


_RULES: Final[Mapping[TriggerRule, Callable[[Upstream], Verdict]]] = {
    TriggerRule.ALL_SUCCESS: _all_success,
    TriggerRule.ALL_FAILED: _all_failed,
    TriggerRule.ALL_DONE: _when_done(lambda _: Verdict.RUN),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: _when_done(_all_done_min_one_success),
    TriggerRule.ALL_SKIPPED: _all_skipped,
    TriggerRule.ONE_SUCCESS: _one_success,
    TriggerRule.ONE_FAILED: _one_failed,
    TriggerRule.ONE_DONE: _one_done,
    TriggerRule.NONE_FAILED: _none_failed,
    TriggerRule.NONE_SKIPPED: _none_skipped,
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: _none_failed_min_one_success,
    TriggerRule.ALWAYS: lambda _: Verdict.RUN,
    TriggerRule.ALL_DONE_SETUP_SUCCESS: _when_done(lambda _: Verdict.RUN),
}
