"""Slots of limits that running calls hold: asked for here, granted by the driver of the flow run.

User code waits here, and may be interrupted between any two steps. So nothing here takes a lock
that another thread needs: plain operations of dicts do, and a thread that waits looks now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from raflow import errors
from raflow.define import SlotsWanted
from raflow.model import Awaited, Granted, TaskRunKey

SlotAnswer: TypeAlias = Granted | Awaited | errors.RaflowError
"""What becomes of a claim: the slots are its own; it waits; it never gets them; or (a
`SlotLostError`) they were its own and are no more."""

WHOLE_CALL: Final = 0
"""The claim of a call that holds slots, by `limits`, as long as it runs; those of blocks follow."""

_LOOK_SECONDS: Final = 0.02
_AGAIN_SECONDS: Final = 5.0
"""How soon a question is asked again to which no answer came: either may have got lost."""


class ClaimMade(NamedTuple):
    """What a running call wants of limits."""

    claim: int
    """Unique in the batch."""
    run: TaskRunKey
    label: str
    """The name of the call, for people."""
    amounts: Mapping[str, int]
    priority: int
    strict: bool
    """Whether it ends if it loses them."""


class SlotLine(Protocol):
    """How the calls of a batch reach the driver of their flow run, and are reached."""

    def ask(self, made: ClaimMade) -> None:
        """Ask for slots; the answers come later. Does not block."""

    def leave(self, claim: int) -> None:
        """Say that slots are not wanted, or not held, any more. Does not block."""

    def end_call(self, position: int, error: errors.SlotLostError) -> None:
        """End a call that goes on without the slots that it must hold."""


@dataclass(slots=True, kw_only=True)
class _Claim:
    made: ClaimMade
    position: int
    answer: Granted | errors.RaflowError | None = None
    reason: str = ""
    """Why there is no answer yet."""
    lost: errors.SlotLostError | None = None
    wake: Callable[[], object] | None = None
    """Called once there is an answer."""

    def settle(self, answer: Granted | errors.RaflowError) -> None:
        if self.answer is None:
            self.answer = answer
            if self.wake is not None:
                with contextlib.suppress(RuntimeError):  # the event loop was closed
                    self.wake()


class BatchSlots:
    """What the calls of a batch hold and want; answers may come on any thread."""

    def __init__(self, line: SlotLine) -> None:
        """Begin with nothing."""
        self._line = line
        self._pid = os.getpid()
        self._numbers = itertools.count(WHOLE_CALL + 1)
        self._claims: dict[int, _Claim] = {}

    def claim(self, position: int, run: TaskRunKey, label: str, wanted: SlotsWanted) -> _Claim:
        """Ask for slots."""
        amounts, _, priority, strict = wanted
        made = ClaimMade(next(self._numbers), run, label, amounts, priority, strict)
        claim = _Claim(made=made, position=position)
        self._claims[made.claim] = claim
        return claim

    def ask(self, claim: _Claim) -> None:
        """Ask for slots, or ask again."""
        if os.getpid() == self._pid:
            self._line.ask(claim.made)
        else:
            self.unreachable(claim.made.claim)  # a copy of the process has no line of its own

    def answered(self, number: int, answer: SlotAnswer) -> None:
        """Take an answer of the driver."""
        if number == WHOLE_CALL:
            if isinstance(answer, errors.SlotLostError):
                self._line.end_call(0, answer)  # such a call travels alone
            return
        claim = self._claims.get(number)
        if claim is None:
            if isinstance(answer, Granted):
                self._line.leave(number)
        elif isinstance(answer, Awaited):
            claim.reason = answer.reason
        elif not isinstance(answer, errors.SlotLostError):
            claim.settle(answer)
        elif claim.made.strict:
            claim.lost = answer
            self._line.end_call(claim.position, answer)

    def leave(self, number: int) -> errors.SlotLostError | None:
        """Give slots back, or stop waiting for them; returns how they were lost, if they were."""
        claim = self._claims.pop(number, None)
        if claim is None or os.getpid() != self._pid:
            return None
        self._line.leave(number)
        return claim.lost

    def over(self, position: int) -> None:
        """Take note that a call has ended, whatever its threads still do."""
        for claim in list(self._claims.values()):
            if claim.position == position:
                self.leave(claim.made.claim)
                claim.settle(errors.SlotLostError(f"{claim.made.label!r} has ended."))

    def unreachable(self, number: int) -> None:
        """Take note that the driver cannot be reached."""
        claim = self._claims.get(number)
        if claim is not None:
            claim.settle(
                errors.BackendError(
                    f"{claim.made.label!r} asks for slots of limits, and its process cannot reach "
                    "the one that drives the flow run. Open the network between them, or declare "
                    "the limits on the task: `@task(limits=[...])`."
                )
            )


class CallSlots:
    """Where one call gets its slots; a `define.SlotGate`."""

    def __init__(self, slots: BatchSlots, position: int, run: TaskRunKey, label: str) -> None:
        """Ask for a call at a position of a batch."""
        self._slots = slots
        self._position = position
        self._run = run
        self._label = label

    def acquire(self, wanted: SlotsWanted) -> str:
        """Wait for slots and hold them; an interruption of the call ends the wait."""
        claim = self._claim(wanted)
        try:
            due = _due(wanted.timeout_seconds)
            ask_at = 0.0
            while claim.answer is None:
                now = time.monotonic()
                if now >= due:
                    raise too_late(self._label, wanted, claim.reason)
                if now >= ask_at:
                    self._slots.ask(claim)
                    ask_at = now + _AGAIN_SECONDS
                time.sleep(_LOOK_SECONDS)
            return _holder(claim)
        except BaseException:
            self._slots.leave(claim.made.claim)
            raise

    async def acquire_async(self, wanted: SlotsWanted) -> str:
        """Do as `acquire` without blocking the event loop."""
        claim = self._claim(wanted)
        limit = asyncio.timeout(wanted.timeout_seconds)
        try:
            loop, answered = asyncio.get_running_loop(), asyncio.Event()
            claim.wake = lambda: loop.call_soon_threadsafe(answered.set)
            async with limit:
                while claim.answer is None:
                    self._slots.ask(claim)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(answered.wait(), _AGAIN_SECONDS)
            return _holder(claim)
        except BaseException as error:
            self._slots.leave(claim.made.claim)
            if limit.expired() and isinstance(error, TimeoutError):
                raise too_late(self._label, wanted, claim.reason) from None
            raise

    def release(self, holder: str) -> errors.SlotLostError | None:
        """Give slots back; see `define.SlotGate.release`."""
        return self._slots.leave(int(holder))

    def over(self) -> None:
        """Take note that the call has ended."""
        self._slots.over(self._position)

    def _claim(self, wanted: SlotsWanted) -> _Claim:
        return self._slots.claim(self._position, self._run, self._label, wanted)


def too_late(who: str, wanted: SlotsWanted, reason: str) -> errors.SlotTimeoutError:
    """Say that slots did not come in time, and who holds them."""
    named = ", ".join(f"{amount} of {name!r}" for name, amount in wanted.amounts.items())
    why = f": {reason}" if reason else ""
    return errors.SlotTimeoutError(
        f"Slots of limits ({named}) did not come to {who} within {wanted.timeout_seconds:g} "
        f"seconds{why}.",
        limits=list(wanted.amounts),
    )


def _holder(claim: _Claim) -> str:
    if isinstance(claim.answer, errors.RaflowError):
        raise claim.answer
    return str(claim.made.claim)


def _due(seconds: float | None) -> float:
    return float("inf") if seconds is None else time.monotonic() + seconds
