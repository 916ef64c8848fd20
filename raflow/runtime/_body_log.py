"""Keeps what the body of a flow logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from raflow.define import FlowContext, active_flow, active_task
from raflow.model import LogLine


class BodyLog(logging.Handler):
    """Hands on the `logging` records of one flow's body while it is entered.

    Only records made in the body itself count: those of its tasks are kept where the tasks run.
    """

    def __init__(self, context: FlowContext, level: int, keep: Callable[[LogLine], None]) -> None:
        """Hand the lines of this context's body to `keep`."""
        super().__init__(level)
        self._context = context
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, a line of log for each line of text."""
        if active_flow.get() is not self._context or active_task.get() is not None:
            return
        for text in self.format(record).splitlines():
            self._keep(LogLine(record.created, record.levelno, record.name, text))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self)
