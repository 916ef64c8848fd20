"""Why a run does not go on: a pause, people, calls held up, the next attempt; or it leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from raflow import engine, errors, execute
from raflow._util import crash_point
from raflow.model import (
    BEING_SUSPENDED,
    NOT_PAUSED,
    TAKEN,
    FlowRunEvent,
    LogLine,
    State,
    StateName,
    next_flow_run_state,
)
from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._messages import (
    BodyLeft,
    ChildLeft,
    GoOn,
    InputAwaited,
    InputGiven,
    LogWritten,
    PauseWanted,
    SuspendWanted,
    TryAgain,
)
from raflow.runtime.driver._subflows import Subflows

SUSPENDED: Final = engine.RunSettled(cancelled=False, unhandled=())
"""How a run has settled that another process is to go on with."""
_LEAVE: Final = "the flow run is suspended"
_UNDER_WAY: Final = frozenset({StateName.RUNNING, StateName.PAUSED, StateName.AWAITING_INPUT})


class Pauses:
    """Has a run pause, go on, and leave for another process; on the driver's thread."""

    def __init__(self, driver: Driven) -> None:
        """Begin with a run that goes on."""
        self._driver = driver
        self._subflows: Subflows | None = None
        self.paused = ""
        """Why nothing is started; empty: it is not paused."""
        self.suspending = ""
        """Why the run is being suspended; empty: it is not."""
        self._pauses: list[Future[None]] = []
        self._held_up = ""
        """Why calls that could run do not."""
        self._questions: list[str] = []
        """What the body waits for people for."""
        self._rests = False
        self._body_is_over = False

    def begin(self, subflows: Subflows) -> None:
        """Take the children of the run; before its first call."""
        self._subflows = subflows

    def body_ended(self) -> None:
        """Take note that the body makes no more calls, nor waits for any."""
        self._body_is_over = True

    def end_waits(self) -> None:
        """Let the body go on where it waits for a pause to be over."""
        pauses, self._pauses = self._pauses, []
        for over in pauses:
            if not over.done():
                over.set_result(None)

    # Pauses, and people ---------------------------------------------------------------------------

    def _pause_wanted(self, message: PauseWanted) -> None:
        crash_point("pause.before_state")
        if message.over is not None:
            self._pauses.append(message.over)
        self.paused = message.reason
        self._show()
        self._driver.feed(engine.PauseAsked(at=self._driver.clock(), reason=message.reason))

    def _go_on(self, message: GoOn) -> None:
        if message.told is not None:
            paused = TAKEN if self.paused else NOT_PAUSED
            message.told.set_result(BEING_SUSPENDED if self.suspending else paused)
        if self.suspending:
            return  # it goes on in another process
        self._rests = False
        self.paused = ""
        self.end_waits()
        self._show()
        self._driver.feed(engine.UnpauseAsked(at=self._driver.clock()))

    def _input_awaited(self, message: InputAwaited) -> None:
        self._questions.append(message.reason)
        self._show()

    def _input_given(self, message: InputGiven) -> None:
        self._questions.remove(message.reason)
        self._show()

    def _calls_held_up(self, message: execute.CallsHeldUp) -> None:
        self._held_up = message.reason
        driver = self._driver
        text = message.reason or "Calls are not held up any more"
        driver.post(LogWritten(LogLine(driver.clock(), logging.WARNING, "raflow", text)))
        self._show()

    def _show(self) -> None:
        """Record what the run waits for: for people, or to be let go on, or for neither."""
        history = self._driver.history
        current = history.flow_run.state
        if current.name not in _UNDER_WAY:
            return
        event, reason = FlowRunEvent.UNPAUSED, ""
        if self._questions:
            event, reason = FlowRunEvent.INPUT_ASKED, self._questions[-1]
            if self.paused:
                way_on = f"`raflow unpause {history.flow_run.short_name}`"
                known = "" if way_on in self.paused else f": {way_on}"
                reason += f"; and no task starts: {self.paused}{known}"
        elif self.paused:
            event, reason = FlowRunEvent.PAUSED, self.paused
        elif current.name is StateName.RUNNING:
            if current.reason != self._held_up:
                held = State(name=current.name, at=self._driver.clock(), reason=self._held_up)
                history.flow_run_entered(held)
            return
        elif current.name is StateName.AWAITING_INPUT:
            event = FlowRunEvent.INPUT_GIVEN
        name = next_flow_run_state(current.name, event)
        if (name, reason) != (current.name, current.reason):
            state = State(name=name, at=self._driver.clock(), reason=reason)
            history.flow_run_entered(state)

    # The next attempt -----------------------------------------------------------------------------

    def _try_again(self, message: TryAgain) -> None:
        if message.turn.done():
            return  # it is to end instead
        history = self._driver.history
        name = next_flow_run_state(history.flow_run.state.name, FlowRunEvent.RETRIED)
        history.tried_again(State(name=name, at=self._driver.clock(), message=message.name))
        self._show()
        message.turn.set_result(None)

    # Leaving it to another process ----------------------------------------------------------------

    def _suspend_wanted(self, message: SuspendWanted) -> None:
        if not self.suspending:
            crash_point("suspend.before_rest")
            assert self._subflows is not None
            self.suspending = message.reason
            self._subflows.suspend(message.reason)
            self._driver.feed(engine.PauseAsked(at=self._driver.clock(), reason=message.reason))

    def _at_rest(self, _: engine.AtRest) -> None:
        self._rests = True
        self._try_to_leave()

    def _try_to_leave(self) -> None:
        """End the body of a run that is suspended, once nothing runs any more."""
        assert self._subflows is not None
        if not (self.suspending and self._rests) or self._subflows.running:
            return
        self._driver.outcomes.end(errors.RunSuspended(_LEAVE))
        if self._body_is_over:
            self._body_left(BodyLeft())

    def _body_left(self, _: BodyLeft) -> None:
        if not self._driver.settled.done():
            self._driver.settled.set_result(SUSPENDED)

    def _child_left(self, _: ChildLeft) -> None:
        self._try_to_leave()

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {
            PauseWanted: self._pause_wanted,
            GoOn: self._go_on,
            execute.CallsHeldUp: self._calls_held_up,
            InputAwaited: self._input_awaited,
            InputGiven: self._input_given,
            TryAgain: self._try_again,
            SuspendWanted: self._suspend_wanted,
            BodyLeft: self._body_left,
            ChildLeft: self._child_left,
        }

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {engine.AtRest: self._at_rest}
