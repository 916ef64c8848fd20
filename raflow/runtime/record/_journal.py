"""Where all that happens in a flow run is noted: for the record, and for those who watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from raflow.model import (
    LogLine,
    Record,
    RunNumbers,
    State,
    StateChange,
    TaskRunBlock,
    TaskRunKey,
    decode_log,
    encode_log,
)
from raflow.runtime.record._observer import Observer
from raflow.runtime.record._recorder import Recorder

_LOG: Final = logging.getLogger("raflow.runtime")


class Journal:
    """Takes records of one flow run in their order, and tells observers of them."""

    def __init__(
        self,
        flow_run_id: str,
        recorder: Recorder,
        observers: Sequence[Observer],
        numbers: RunNumbers | None = None,
    ) -> None:
        """Begin, or go on counting where an earlier process has left off."""
        self.flow_run_id = flow_run_id
        self.is_watched = bool(observers)
        """Whether anybody is told."""
        self._recorder = recorder
        self._observers = tuple(observers)
        self._changes = numbers.change if numbers else 0
        self.blocks = numbers.block if numbers else 0
        """Number of the next block of task runs."""

    def add(self, record: Record) -> None:
        """Have something recorded."""
        self._recorder.add(self.flow_run_id, record)

    def state_changed(self, key: TaskRunKey | None, state: State) -> None:
        """Have recorded that a task run, or the flow run, has entered a state."""
        change = StateChange(
            flow_run_id=self.flow_run_id, number=self._changes, key=key, state=state
        )
        self._recorder.add(self.flow_run_id, change)
        self._changes += 1

    def add_block(self, block: TaskRunBlock) -> None:
        """Have a block of task runs recorded, which must have the next number."""
        self.blocks += 1
        self._recorder.add(self.flow_run_id, block)
        self.tell(lambda observer: observer.task_runs_completed(block))

    def add_log(self, key: TaskRunKey, attempt: int, segment: bytes, label: str) -> None:
        """Have recorded, and told, what an attempt has logged."""
        self._recorder.add_log(self.flow_run_id, key, attempt, segment)
        if any(type(o).log_written is not Observer.log_written for o in self._observers):
            lines = decode_log(segment)
            self.tell(lambda observer: observer.log_written(self.flow_run_id, label, lines))

    def add_body_log(self, lines: Sequence[LogLine]) -> None:
        """Have recorded, and told, what the flow's own body has logged."""
        self._recorder.add_log(self.flow_run_id, None, 0, encode_log(lines))
        self.tell(lambda observer: observer.log_written(self.flow_run_id, "", lines))

    def tell(self, what: Callable[[Observer], None]) -> None:
        """Tell all observers; one that fails is no reason for the run to end."""
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                _LOG.exception("An observer of the run failed; the run goes on.")
