"""What a flow run and its subflows share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from raflow import config, execute
from raflow.model import Capacity, FlowRun
from raflow.runtime.driver import Clock
from raflow.runtime.record import Hooks, LazyStore, Observer, Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The surroundings of a flow run: where it executes and where it is recorded."""

    settings: config.Settings
    backend: execute.Backend
    capacity: Capacity
    """What the backend had to run on when the run began."""
    recorder: Recorder
    hooks: Hooks
    """To undo what was done; where there are any, they are among the observers as well."""
    observers: tuple[Observer, ...]
    signing_key: bytes
    store: LazyStore
    """The record, to read; `recorder` writes it."""
    clock: Clock
    entrypoint: str = ""
    """Where the flow was loaded from."""


class Parent(NamedTuple):
    """The node of another run that a child run stands for."""

    flow_run_id: str
    node: int
    refreshes: bool = False
    """Whether all values are computed anew in it, even those that are cached."""


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
