"""Slots of limits that the body of a flow holds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from concurrent.futures import Future, InvalidStateError

from raflow import errors, execute
from raflow.define import SlotsWanted
from raflow.model import Awaited, Granted, LogLine
from raflow.runtime.body._waiting import wait_async
from raflow.runtime.desk import Slots
from raflow.runtime.driver import Driven, LogWritten, SlotsNoted

_WHO = "the body"


class _Block:
    """Slots that a block holds, or waits for."""

    def __init__(self, holder: str, wanted: SlotsWanted) -> None:
        self.holder = holder
        self.wanted = wanted
        self.held: Future[None] = Future()
        """Done once they are held, or will never be."""
        self.reason = ""
        self.lost: errors.SlotLostError | None = None


class BodySlots:
    """Where the body of a flow gets slots; a `define.SlotGate`."""

    def __init__(self, driver: Driven, slots: Slots) -> None:
        """Ask for the body of the run that a driver drives."""
        self._driver = driver
        self._slots = slots
        self._numbers = itertools.count()
        self._blocks: dict[str, _Block] = {}

    def acquire(self, wanted: SlotsWanted) -> str:
        """Wait for slots of limits and hold them; see `SlotGate.acquire`."""
        block = self._ask(wanted)
        try:
            block.held.result(wanted.timeout_seconds)
        except BaseException as error:
            self.release(block.holder)
            if isinstance(error, TimeoutError):
                raise execute.too_late(_WHO, wanted, block.reason) from None
            raise
        return block.holder

    async def acquire_async(self, wanted: SlotsWanted) -> str:
        """Do as `acquire` without blocking the event loop."""
        block = self._ask(wanted)
        try:
            async with asyncio.timeout(wanted.timeout_seconds):
                await wait_async(block.held)
            block.held.result()
        except BaseException as error:
            self.release(block.holder)
            if isinstance(error, TimeoutError):
                raise execute.too_late(_WHO, wanted, block.reason) from None
            raise
        return block.holder

    def release(self, holder: str) -> errors.SlotLostError | None:
        """Give slots back; see `SlotGate.release`."""
        self._slots.release(holder)
        block = self._blocks.pop(holder, None)
        return block.lost if block is not None and block.wanted.strict else None

    def _ask(self, wanted: SlotsWanted) -> _Block:
        run = self._driver.history.flow_run
        block = _Block(f"{run.id}/{run.incarnation}/body/{next(self._numbers)}", wanted)
        self._blocks[block.holder] = block
        self._driver.outcomes.until_the_end(block.held)
        self._slots.ask(
            block.holder,
            _WHO,
            wanted.amounts,
            lambda answer: self._told(block, answer),
            priority=wanted.priority,
            strict=wanted.strict,
        )
        return block

    def _told(self, block: _Block, answer: execute.SlotAnswer) -> None:
        """Take an answer; on the steward's thread."""
        if isinstance(answer, errors.SlotLostError):
            block.lost = answer
            self._note(logging.WARNING, answer.message)
        elif isinstance(answer, Awaited):
            block.reason = answer.reason
        elif block.lost is not None:
            held = isinstance(answer, Granted)
            self._note(logging.INFO, f"{_WHO} holds its slots again." if held else str(answer))
        else:
            with contextlib.suppress(InvalidStateError):  # the run has ended, and so has the wait
                if isinstance(answer, Granted):
                    block.held.set_result(None)
                else:
                    block.held.set_exception(answer)

    def _note(self, level: int, text: str) -> None:
        self._driver.post(SlotsNoted(text))
        self._driver.post(LogWritten(LogLine(self._driver.clock(), level, "raflow", text)))
