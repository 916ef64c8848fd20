"""Whatever holders and waiters do, a limit gives out its slots as its rules say."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raflow.model import Limit, SlotRequest
from raflow.store import Store
from tests.store import times

SECONDS = 100.0
STEP = 30.0
PER_SECONDS = 70.0
_numbers = itertools.count()


class Step(NamedTuple):
    """Something that happens."""

    what: Literal["ask", "release", "renew", "wait"]
    holder: int


@dataclass
class Wish:
    """What a holder wants, and where it stands."""

    amounts: dict[str, int]
    rank: tuple[int, int]
    expires_at: float
    granted_at: float | None = None


@dataclass
class Rules:
    """Two numbers of slots and a rate, in the plainest way."""

    slots: dict[str, int]
    rate: str
    now: float = 0.0
    wishes: dict[int, Wish] = field(default_factory=dict)
    spent: list[tuple[float, int]] = field(default_factory=list)
    arrivals: int = 0

    def let_pass(self) -> None:
        self.now += STEP
        for holder in [h for h, wish in self.wishes.items() if wish.expires_at <= self.now]:
            self.release(holder)

    def release(self, holder: int) -> None:
        wish = self.wishes.pop(holder, None)
        if wish is not None and wish.granted_at is not None and self.rate in wish.amounts:
            self.spent.append((wish.granted_at, wish.amounts[self.rate]))

    def renew(self) -> set[int]:
        granted = {h: wish for h, wish in self.wishes.items() if wish.granted_at is not None}
        for wish in granted.values():
            wish.expires_at = self.now + SECONDS
        return set(granted)

    def ask(self, holder: int, amounts: dict[str, int], priority: int) -> bool:
        if holder not in self.wishes:
            self.arrivals += 1
            rank = (-priority, self.arrivals)
            self.wishes[holder] = Wish(amounts, rank, self.now + SECONDS)
        wish = self.wishes[holder]
        if wish.granted_at is not None:
            wish.expires_at = self.now + SECONDS
            return True
        if wish.expires_at < self.now + SECONDS / 2:
            wish.expires_at = self.now + SECONDS
        if all(self._is_free(name, amount, wish) for name, amount in wish.amounts.items()):
            wish.granted_at, wish.expires_at = self.now, self.now + SECONDS
        return wish.granted_at is not None

    def _is_free(self, name: str, amount: int, mine: Wish) -> bool:
        others = [wish for wish in self.wishes.values() if name in wish.amounts]
        if any(wish.granted_at is None and wish.rank < mine.rank for wish in others):
            return False
        return self.used(name) + amount <= self.slots[name]

    def used(self, name: str) -> int:
        granted = [
            (wish.granted_at, wish.amounts[name])
            for wish in self.wishes.values()
            if wish.granted_at is not None and name in wish.amounts
        ]
        if name == self.rate:
            since = self.now - PER_SECONDS
            return sum(n for at, n in [*granted, *self.spent] if at > since)
        return sum(n for _, n in granted)


holders = st.integers(0, 4)
steps = st.lists(
    st.builds(
        Step,
        what=st.sampled_from([*["ask"] * 7, *["release"] * 3, "renew", "wait"]),
        holder=holders,
    ),
    min_size=15,
    max_size=40,
)
wishes = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("xxyr"), st.integers(1, 2), min_size=1, max_size=3),
        st.integers(0, 1),
    ),
    min_size=5,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=steps, wishes=wishes, slots=st.lists(st.integers(2, 3), min_size=3, max_size=3))
def test_slots_go_to_whom_the_rules_say(
    store: Store, steps: list[Step], wishes: list[tuple[dict[str, int], int]], slots: list[int]
) -> None:
    example = f"example-{next(_numbers)}"
    rules = Rules(dict(zip("xyr", slots, strict=True)), "r")
    for state in store.limits.all():
        store.limits.remove(state.limit.name)
    for name, number in rules.slots.items():
        per_seconds = PER_SECONDS if name == "r" else 0.0
        store.limits.set(Limit(name=f"{example}-{name}", slots=number, per_seconds=per_seconds))
    for step in steps:
        holder = f"{example}/{step.holder}"
        if step.what == "wait":
            times.let_pass(store, STEP)
            rules.let_pass()
        elif step.what == "release":
            store.limits.release(holder)
            rules.release(step.holder)
        elif step.what == "renew":
            kept = {f"{example}/{number}" for number in rules.renew()}
            assert store.limits.renew(example, seconds=SECONDS) == kept
        else:
            amounts, priority = wishes[step.holder]
            wish = SlotRequest(
                holder=holder,
                flow_run_id=example,
                label=holder,
                amounts={f"{example}-{name}": amount for name, amount in amounts.items()},
                priority=priority,
            )
            granted = bool(store.limits.acquire(wish, seconds=SECONDS))
            assert granted == rules.ask(step.holder, amounts, priority)
        for state in store.limits.all():
            used = sum(lease.amount for lease in state.holders)
            assert used == rules.used(state.limit.name[-1]) <= state.limit.slots
