"""What a change of the clocks means for a slot, in words."""

from __future__ import annotations

from datetime import datetime, timedelta

from raflow.model.schedule._rules import Once, Rule, counts_once
from raflow.model.schedule._zones import next_change, skipped, wall, zone


def explain(rule: Rule, slot: datetime) -> str:
    """Return what is special about a slot because clocks are changed; empty: nothing."""
    if isinstance(rule, Once):
        return ""
    tz = zone(rule.timezone)
    shown = wall(tz, slot)
    if not rule.elapsing and rule.matcher()(shown) != shown:
        change = next_change(tz, slot - timedelta(seconds=1), slot)
        missed = skipped(rule.matcher(), change) if change else None
        if change and missed:
            until = _time(change.after)
            if change.after.date() != change.before.date():
                until = f"{until} of {change.after:%Y-%m-%d}"
            return (
                f"{_time(missed)} does not exist on {missed:%Y-%m-%d} in {rule.timezone}: clocks "
                f"go from {_time(change.before)} to {until}, when it starts instead."
            )
    first, second = (slot.astimezone(tz).replace(fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset() or wall(tz, first) != wall(tz, second):
        return ""
    which = "second" if slot.astimezone(tz).fold else "first"
    told = f"{_time(shown)} comes twice on {shown:%Y-%m-%d} in {rule.timezone}; this is the {which}"
    return f"{told}, the only one that counts." if counts_once(rule) else f"{told}."


def _time(at: datetime) -> str:
    return f"{at:%H:%M:%S}".removesuffix(":00")
