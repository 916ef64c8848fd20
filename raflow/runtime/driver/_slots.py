"""Looks after the slots of a run's calls: of whole calls, by `limits`, and of blocks in them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from raflow import engine, errors, execute
from raflow._util import crash_point
from raflow.model import Awaited, Granted, LogLine, TaskRunKey
from raflow.runtime.desk import Slots
from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._messages import LogWritten, SlotsNoted, SlotsTold

_Block: TypeAlias = tuple[int, int]
"""Batch, and claim in it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Ask:
    """Slots that a call holds, or waits for."""

    holder: str
    run: TaskRunKey
    label: str
    batch: int | None
    """In which the call runs, as far as that is known."""
    claim: int
    strict: bool
    is_open: bool = True
    reason: str = ""
    """Why it waits."""
    lost: errors.SlotLostError | None = None
    """How the slots were lost that it still has to get again."""


class CallSlots:
    """Stands between calls that need slots and those who get them; on the driver's thread."""

    def __init__(self, driver: Driven) -> None:
        """Begin with no call that needs any."""
        self._driver = driver
        self._slots: Slots | None = None
        self._calls: dict[TaskRunKey, Ask] = {}
        """Of whole calls."""
        self._blocks: dict[int, dict[int, Ask]] = {}
        """Of blocks, by batch and claim."""

    def begin(self, slots: Slots) -> None:
        """Take the place where slots are had; before the first call."""
        self._slots = slots

    @property
    def slots(self) -> Slots:
        """Where slots are had."""
        assert self._slots is not None, "nothing is asked before the run has begun"
        return self._slots

    def size_of(self, name: str) -> int:
        """Return how many slots a limit has."""
        return self.slots.size_of(name)

    # Whole calls ----------------------------------------------------------------------------------

    def _ask(self, command: engine.AskSlots) -> None:
        run = command.run
        entry = self._driver.entry(run.node)
        ask = Ask(
            holder=holder_of(self._driver, run),
            run=run,
            label=entry.label(run.map_index),
            batch=None,
            claim=execute.WHOLE_CALL,
            strict=entry.request.options.strict_limits,
        )
        self._calls[run] = ask
        self._have(ask, dict(command.amounts), command.priority)

    def _release(self, command: engine.ReleaseSlots) -> None:
        ask = self._calls.pop(command.run, None)
        if ask is not None:
            self._close(ask)

    def began(self, event: execute.CallStarted) -> None:
        """Take note that a call runs."""
        ask = self._calls.get(event.run)
        if ask is not None:
            ask.batch = event.batch
            self._end_without(ask)
        if ask is not None or self._blocks:
            self._show(event.batch, event.run)

    # Blocks ---------------------------------------------------------------------------------------

    def _asked(self, event: execute.SlotsAsked) -> None:
        claim, run, label, amounts, priority, strict = event.made
        blocks = self._blocks.setdefault(event.batch, {})
        ask = blocks.get(claim)
        if ask is None:
            ask = blocks[claim] = Ask(
                holder=f"{holder_of(self._driver, run)}/{event.batch}.{claim}",
                run=run,
                label=label,
                batch=event.batch,
                claim=claim,
                strict=strict,
            )
        self._have(ask, amounts, priority)

    def _left(self, event: execute.SlotsLeft) -> None:
        ask = self._blocks.get(event.batch, {}).pop(event.claim, None)
        if ask is not None:
            self._close(ask)
            self._show(event.batch, ask.run)

    def batch_over(self, batch: int) -> None:
        """Give back what the calls of a batch have left."""
        for ask in self._blocks.pop(batch, {}).values():
            self._close(ask)

    # Both -----------------------------------------------------------------------------------------

    def _have(self, ask: Ask, amounts: Mapping[str, int], priority: int) -> None:
        post = self._driver.post
        self.slots.ask(
            ask.holder,
            ask.label,
            amounts,
            lambda answer: post(SlotsTold(functools.partial(self._told, ask), answer)),
            priority=priority,
            strict=ask.strict,
        )

    def _close(self, ask: Ask) -> None:
        ask.is_open = False
        crash_point("slots.before_release")
        self.slots.release(ask.holder)

    def _told(self, ask: Ask, answer: execute.SlotAnswer) -> None:
        if not ask.is_open:
            return
        if isinstance(answer, errors.SlotLostError):
            self._lost(ask, answer)
        elif ask.lost is not None:
            self._told_again(ask, answer)
        elif ask.claim == execute.WHOLE_CALL:
            self._tell_engine(ask.run, answer)
        else:
            assert ask.batch is not None
            self._driver.session.tell_slots(ask.batch, ask.claim, answer)
            ask.reason = answer.reason if isinstance(answer, Awaited) else ""
            self._show(ask.batch, ask.run)

    def _tell_engine(self, run: TaskRunKey, answer: execute.SlotAnswer) -> None:
        at = self._driver.clock()
        if isinstance(answer, Awaited):
            self._driver.feed(engine.SlotsAwaited(at=at, run=run, reason=answer.reason))
        elif isinstance(answer, Granted):
            crash_point("slots.after_grant")
            self._driver.feed(engine.SlotsGranted(at=at, run=run))
        else:
            self._driver.feed(engine.SlotsRefused(at=at, run=run, message=str(answer)))

    def _lost(self, ask: Ask, error: errors.SlotLostError) -> None:
        ask.lost = error
        self._note(ask.run, logging.WARNING, error.message)
        self._end_without(ask)

    def _end_without(self, ask: Ask) -> None:
        """Have a call, or a block, end that goes on without its slots and must not."""
        if ask.lost is not None and ask.strict and ask.batch is not None:
            self._driver.session.tell_slots(ask.batch, ask.claim, ask.lost)

    def _told_again(self, ask: Ask, answer: execute.SlotAnswer) -> None:
        """Take an answer for slots that were lost, and are asked for again."""
        if isinstance(answer, Awaited):
            ask.reason = f"its slots were lost: {answer.reason}"
        else:
            ask.reason = ""
            if isinstance(answer, Granted):
                ask.lost = None
                self._note(ask.run, logging.INFO, f"{ask.label} holds its slots again.")
            else:
                self._note(ask.run, logging.WARNING, f"{ask.label} lost its slots: {answer}")
        if ask.batch is not None:
            self._show(ask.batch, ask.run)

    def _note(self, run: TaskRunKey, level: int, text: str) -> None:
        driver = self._driver
        driver.history.task_runs.noted(run, driver.clock(), text)
        driver.post(LogWritten(LogLine(driver.clock(), level, "raflow", text)))

    def _show(self, batch: int, run: TaskRunKey) -> None:
        """Show what a call that runs waits for."""
        asks = [*self._blocks.get(batch, {}).values()]
        if run in self._calls:
            asks.append(self._calls[run])
        reasons = [ask.reason for ask in asks if ask.run == run and ask.reason]
        self._driver.history.task_runs.waits("; ".join(reasons), run)

    def _noted(self, message: SlotsNoted) -> None:
        self._driver.history.noted(self._driver.clock(), message.text)

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {
            SlotsTold: lambda message: message.take(message.answer),
            execute.SlotsAsked: self._asked,
            execute.SlotsLeft: self._left,
            SlotsNoted: self._noted,
        }

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {engine.AskSlots: self._ask, engine.ReleaseSlots: self._release}


def holder_of(driver: Driven, run: TaskRunKey) -> str:
    """Return what a task run holds slots under; another process of the flow run has other ones."""
    flow_run = driver.history.flow_run
    return f"{flow_run.id}/{flow_run.incarnation}/{run.node}/{run.map_index}"
