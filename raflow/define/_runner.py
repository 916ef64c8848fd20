"""The one way up: whoever runs flows is known here by name only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from raflow.model import FlowRun

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from raflow.define._flow import Flow
    from raflow.model import Deployment, DeploymentSpec, ScheduleSpec

_DEFAULT: Final = "raflow.runtime"
_SERVER: Final = "raflow.worker"

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

    def resume_flow(
        self, flow: Flow[..., Any], flow_run_id: str, *, allow_new_code: bool, force: bool
    ) -> RunOutcome:
        """Go on with a run of a flow to its end."""

    def rerun_flow(
        self,
        flow: Flow[..., Any],
        flow_run_id: str,
        *,
        from_: Sequence[str],
        failed: bool,
        parameters: Mapping[str, Any],
        allow_new_code: bool,
    ) -> RunOutcome:
        """Run a flow anew, with what an earlier run of it has left."""

    def deploy_flow(
        self,
        flow: Flow[..., Any],
        spec: DeploymentSpec,
        *,
        name: str,
        schedules: Sequence[ScheduleSpec],
        root: Path | None,
        include: Sequence[str],
        exclude: Sequence[str],
        note: str,
    ) -> Deployment:
        """Keep a flow with its code under a name."""

    def run_deployment(
        self,
        name: str,
        parameters: Mapping[str, Any],
        *,
        begins_at: datetime | None,
        flow_run_name: str,
        tags: Sequence[str],
        idempotency_key: str,
        wait: bool,
        timeout_seconds: float | None,
    ) -> FlowRun:
        """Have a worker run a deployment."""

    async def run_deployment_async(
        self,
        name: str,
        parameters: Mapping[str, Any],
        *,
        begins_at: datetime | None,
        flow_run_name: str,
        tags: Sequence[str],
        idempotency_key: str,
        wait: bool,
        timeout_seconds: float | None,
    ) -> FlowRun:
        """Have a worker run a deployment."""

    async def run_flow_async(
        self, flow: Flow[..., Any], parameters: Mapping[str, Any]
    ) -> RunOutcome:
        """Run an async flow with validated parameters to its end."""


class Server(Protocol):
    """Whoever takes the runs of deployments: the module `raflow.worker`."""

    def serve(
        self, deployments: Sequence[Deployment], *, runners: int, drain_seconds: float
    ) -> None:
        """Take the runs of deployments until the process is told to end."""


def register_runner(runner: Runner) -> None:
    """Let calls of flows go to `runner` instead of `raflow.runtime`."""
    _registered[:] = [runner]


def find_runner() -> Runner:
    """Return whoever runs flows; the runtime is imported when the first flow is called."""
    if not _registered:
        _registered.append(cast("Runner", importlib.import_module(_DEFAULT)))
    return _registered[0]


def find_server() -> Server:
    """Return whoever takes the runs of deployments."""
    return cast("Server", importlib.import_module(_SERVER))
