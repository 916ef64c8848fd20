"""Having deployments run; whoever does that is known here by name only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from raflow.define._runner import find_runner, find_server

if TYPE_CHECKING:
    from raflow.model import Deployment, FlowRun


def serve(*deployments: Deployment, runners: int = 0, drain_seconds: float = 60.0) -> None:
    """Take the runs of deployments in this process, until Ctrl-C or SIGTERM.

    It is a worker of their pools, and what starts the runs of schedules: nothing else has to run.

    ```python
    if __name__ == "__main__":
        serve(etl.deploy("nightly", pool="mine"), clean.deploy("clean", pool="mine"))
    ```

    Args:
        *deployments: As `Flow.deploy` returns them.
        runners: How many runs at the same time, of each pool. Default: one for each CPU.
        drain_seconds: How long runs may go on after Ctrl-C; then they are suspended, until a worker
            of their pool goes on with them. A second Ctrl-C ends them at once.

    Raises:
        DefinitionError: A worker loads this file: put the call under `if __name__ == "__main__":`.
        StoreError: The database cannot be opened.
    """
    find_server().serve(deployments, runners=runners, drain_seconds=drain_seconds)


def run_deployment(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    begins_at: datetime | None = None,
    flow_run_name: str = "",
    tags: Sequence[str] = (),
    idempotency_key: str = "",
    wait: bool = True,
    timeout_seconds: float | None = None,
) -> FlowRun:
    """Have a worker run a deployment, and wait for the end of that.

    The run has the version of the deployment, with its code, that is in use at this moment.

    Args:
        name: Of the deployment.
        parameters: In place of those of the deployment, as JSON can hold them.
        begins_at: When it begins at the earliest; without a time zone it is local time. Default:
            now.
        flow_run_name: Name of the run. Default: made from the flow's name.
        tags: Of the run, besides those of the deployment.
        idempotency_key: Whoever calls this again with the same key gets the run of the first call,
            and no second one. Default: inside a flow one that tells this call from others, so that
            a resumed run finds what it has ordered, unless that did not complete; elsewhere none.
        wait: Whether to wait until the run is over. Default: yes.
        timeout_seconds: How long to wait at most. Default: any time.

    Returns:
        The run as it is recorded then. It did not necessarily complete: see its `state`.

    Raises:
        NotFoundError: There is no such deployment; names the closest.
        ParameterError: The flow does not take the parameters, or they are not JSON.
        ConflictError: The key was used for other parameters.
        StoreError: The database cannot be opened or written.
    """
    return find_runner().run_deployment(
        name,
        parameters or {},
        begins_at=begins_at,
        flow_run_name=flow_run_name,
        tags=tags,
        idempotency_key=idempotency_key,
        wait=wait,
        timeout_seconds=timeout_seconds,
    )


async def run_deployment_async(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    begins_at: datetime | None = None,
    flow_run_name: str = "",
    tags: Sequence[str] = (),
    idempotency_key: str = "",
    wait: bool = True,
    timeout_seconds: float | None = None,
) -> FlowRun:
    """Do as `run_deployment`, without keeping the event loop waiting."""
    return await find_runner().run_deployment_async(
        name,
        parameters or {},
        begins_at=begins_at,
        flow_run_name=flow_run_name,
        tags=tags,
        idempotency_key=idempotency_key,
        wait=wait,
        timeout_seconds=timeout_seconds,
    )
