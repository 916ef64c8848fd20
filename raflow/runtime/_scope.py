"""What a flow run and its subflows share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from raflow import config, execute
from raflow.model import FlowRun, TaskPace
from raflow.runtime._driver import Clock
from raflow.runtime._observer import Observer
from raflow.runtime._recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The surroundings of a flow run: where it executes and where it is recorded."""

    settings: config.Settings
    backend: execute.Backend
    recorder: Recorder
    observers: tuple[Observer, ...]
    signing_key: bytes
    paces: Callable[[str, str], Mapping[str, TaskPace]]
    """What earlier runs of a flow, with this fingerprint, have taught: by name of the task."""
    clock: Clock
    entrypoint: str = ""
    """Where the flow was loaded from."""


class Parent(NamedTuple):
    """The node of another run that a child run stands for."""

    flow_run_id: str
    node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOutcome:
    """What came of a flow run."""

    flow_run: FlowRun
    """The final record."""
    value: Any = None
    """What the flow returned; None unless it completed."""
    error: BaseException | None = None
    """Why it did not complete."""

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value
