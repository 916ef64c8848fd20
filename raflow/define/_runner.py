"""The one way up: whoever runs flows is known here by name only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from raflow.model import FlowRun

if TYPE_CHECKING:
    from raflow.define._flow import Flow

_DEFAULT: Final = "raflow.runtime"

_registered: list[Runner] = []


class RunOutcome(Protocol):
    """How a flow run ended."""

    @property
    def flow_run(self) -> FlowRun:
        """The final record of the run."""

    @property
    def value(self) -> Any:
        """What the flow returned; None unless it completed."""

    @property
    def error(self) -> BaseException | None:
        """Why it did not complete; None if it did."""

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""


class Runner(Protocol):
    """Whoever runs flows: the module `raflow.runtime`."""

    def run_flow(self, flow: Flow[..., Any], parameters: Mapping[str, Any]) -> RunOutcome:
        """Run a flow with validated parameters to its end."""

    async def run_flow_async(
        self, flow: Flow[..., Any], parameters: Mapping[str, Any]
    ) -> RunOutcome:
        """Run an async flow with validated parameters to its end."""


def register_runner(runner: Runner) -> None:
    """Let calls of flows go to `runner` instead of `raflow.runtime`."""
    _registered[:] = [runner]


def find_runner() -> Runner:
    """Return whoever runs flows; the runtime is imported when the first flow is called."""
    if not _registered:
        _registered.append(cast("Runner", importlib.import_module(_DEFAULT)))
    return _registered[0]
