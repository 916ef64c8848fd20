"""The slots of limits that one flow run holds and waits for, as the store knows them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from raflow import errors
from raflow.execute import SlotAnswer
from raflow.model import Awaited, FlowRun, Granted, SlotRequest
from raflow.runtime.record import LazyStore, Steward

SLOT_SECONDS: Final = 15.0
"""How long slots, and claims, are a run's without being renewed."""
ASK_SECONDS: Final = 0.2
"""How often somebody asks who waits, as long as few do."""
_ASKS_PER_SECOND: Final = 50
_SLOWEST_SECONDS: Final = SLOT_SECONDS / 3
_LIMITS_SECONDS: Final = 5.0


@dataclass(slots=True, kw_only=True, eq=False)
class _Claim:
    request: SlotRequest
    told: Callable[[SlotAnswer], None]
    strict: bool
    answer: SlotAnswer | None = None
    """What was told last."""
    renewed_at: float = 0.0
    """When it was last certain that the slots are held, by this machine's own clock."""


class Slots:
    """Asks for slots, renews them and gives them back, on the steward's thread."""

    def __init__(
        self,
        run: FlowRun,
        *,
        store: LazyStore,
        steward: Steward,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with none; `clock` tells how long ago something was."""
        self._clock = clock
        self._was_used = False
        self._run = run
        self._store = store
        self._steward = steward
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}
        self._sizes: tuple[float, Mapping[str, int]] = (-_LIMITS_SECONDS, {})

    def close(self) -> None:
        """Give back what is left, once the steward has closed."""
        if self._was_used:
            self._store.open().limits.release_all(self._run.id)

    @property
    def is_in_use(self) -> bool:
        """Whether something is held, or waited for."""
        return bool(self._claims)

    def size_of(self, name: str) -> int:
        """Return how many slots a limit has; 1 if nobody has set it."""
        read_at, sizes = self._sizes
        if self._clock() - read_at > _LIMITS_SECONDS:
            limits = self._store.open().limits.all()
            sizes = {state.limit.name: max(1, state.limit.slots) for state in limits}
            self._sizes = (self._clock(), sizes)
        return sizes.get(name, 1)

    def ask(
        self,
        holder: str,
        label: str,
        amounts: Mapping[str, int],
        told: Callable[[SlotAnswer], None],
        *,
        priority: int = 0,
        strict: bool = False,
    ) -> None:
        """Ask for slots; who has asked already is told again how that stands.

        Args:
            holder: Unique to the claim; what `release` takes.
            label: Who it is, for people; the name of the run is added.
            amounts: Slots by name of the limit.
            told: Called, on any thread, with each answer that is news: with `Granted` once they are
                held, with a `SlotLostError` if they are not any more. They are asked for again
                then, so that `Granted` may follow.
            priority: Higher goes first.
            strict: Whether they count as lost as soon as nobody can be sure that they are held.
        """
        with self._lock:
            claim = self._claims.get(holder)
            if claim is None:
                request = SlotRequest(
                    holder=holder,
                    flow_run_id=self._run.id,
                    label=f"{label} of run {self._run.name}",
                    amounts=amounts,
                    priority=priority,
                )
                self._was_used = True
                claim = _Claim(request=request, told=told, strict=strict)
                self._claims[holder] = claim
                new = claim
            else:
                new = None
        if new is not None:
            self._steward.soon(lambda: self._acquire(new))
        elif claim.answer is not None:
            told(claim.answer)

    def release(self, holder: str) -> None:
        """Give back slots, or a place in line."""
        with self._lock:
            claim = self._claims.pop(holder, None)
        if claim is not None:
            self._steward.soon(lambda: self._store.open().limits.release(holder))

    def _acquire(self, claim: _Claim) -> float | None:
        if not self._is_wanted(claim):
            return None
        limits, request = self._store.open().limits, claim.request
        before = self._clock()
        try:
            answer: Granted | Awaited = limits.acquire(request, seconds=SLOT_SECONDS)
        except (errors.UnknownLimitError, errors.InfeasibleResourcesError) as error:
            with self._lock:
                self._claims.pop(request.holder, None)
            limits.release(request.holder)
            claim.told(error)
            return None
        if not self._is_wanted(claim):
            limits.release(request.holder)
            return None
        claim.renewed_at = before
        self._tell(claim, answer)
        return self._ask_again_after() if isinstance(answer, Awaited) else None

    def _is_wanted(self, claim: _Claim) -> bool:
        return self._claims.get(claim.request.holder) is claim

    @staticmethod
    def _tell(claim: _Claim, answer: SlotAnswer) -> None:
        if claim.answer != answer:
            claim.answer = answer
            claim.told(answer)

    def _ask_again_after(self) -> float:
        waiting = sum(not isinstance(claim.answer, Granted) for claim in self._snapshot())
        return min(max(ASK_SECONDS, waiting / _ASKS_PER_SECOND), _SLOWEST_SECONDS)

    def _snapshot(self) -> list[_Claim]:
        with self._lock:
            return list(self._claims.values())

    # Keeping them -------------------------------------------------------------------------------

    def renew(self) -> None:
        """Renew what the run holds, its cache keys too, and tell those whose slots were lost.

        Called by the steward: nothing is granted, or released in the store, meanwhile.
        """
        before = self._clock()
        held = [claim for claim in self._snapshot() if isinstance(claim.answer, Granted)]
        try:
            limits = self._store.open().limits
            kept = limits.renew(self._run.id, seconds=SLOT_SECONDS)
        except errors.StoreError:
            self._give_up(held)
            raise
        for claim in held:
            if claim.request.holder in kept:
                claim.renewed_at = before
        lost = [claim for claim in held if claim.request.holder not in kept]
        if lost:
            rates = {state.limit.name for state in limits.all() if state.limit.per_seconds}
            for claim in lost:
                # What was taken of a rate is taken; nobody holds it.
                if self._is_wanted(claim) and not rates.issuperset(claim.request.amounts):
                    self._lose(claim, "somebody else may hold them by now")

    def _give_up(self, held: list[_Claim]) -> None:
        """Have those end who must not go on without being certain of their slots."""
        now = self._clock()
        for claim in held:
            if claim.strict and now - claim.renewed_at > SLOT_SECONDS and self._is_wanted(claim):
                self._lose(claim, "the database cannot be reached")

    def _lose(self, claim: _Claim, why: str) -> None:
        names = ", ".join(map(repr, claim.request.amounts))
        seconds = self._clock() - claim.renewed_at
        self._tell(
            claim,
            errors.SlotLostError(
                f"{claim.request.label} has lost its slots of limit {names}: its flow's process "
                f"could not renew them for {seconds:.0f} s, and {why}. They are kept for "
                f"{SLOT_SECONDS:g} s.",
                limits=list(claim.request.amounts),
            ),
        )
        self._steward.soon(lambda: self._acquire(claim))
