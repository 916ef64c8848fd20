"""Ordering runs of deployments, and waiting for their end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pydantic_core

from raflow import errors
from raflow._util import person
from raflow.model import FlowRun, Ordered, order_of

if TYPE_CHECKING:
    from raflow.store import Store

_LOOK_SECONDS: Final = 0.25


def order_run(
    store: Store,
    name: str,
    parameters: Mapping[str, Any],
    *,
    begins_at: float | None = None,
    flow_run_name: str = "",
    tags: Sequence[str] = (),
    idempotency_key: str = "",
) -> Ordered:
    """Order a run of a deployment, of the version that it uses now; a worker of its pool takes it.

    Args:
        store: The record.
        name: Of the deployment.
        parameters: In place of those of the deployment.
        begins_at: When it begins at the earliest, in seconds since the epoch. Default: now.
        flow_run_name: Default: made from the flow's name.
        tags: Of the run, besides those of the deployment.
        idempotency_key: Ordering again under the same key is the same order. Default: none.

    Raises:
        NotFoundError: There is no such deployment; names the closest.
        ParameterError: The flow does not take the parameters, or they are not JSON.
        ConflictError: The key was used for other parameters.
        StoreError: The database cannot be written.
    """
    deployment = store.deployments.get(name)
    order = order_of(
        deployment,
        store.deployments.version(name, deployment.version),
        _plain(name, parameters),
        begins_at=begins_at,
        name=flow_run_name,
        tags=tuple(tags),
        key=idempotency_key,
        actor=person(),
    )
    return store.work.order([order])[0]


def until_final(store: Store, flow_run_id: str, seconds: float | None) -> Iterator[FlowRun]:
    """Return a flow run again and again, some time after each other; the last time it is final.

    Args:
        store: The record.
        flow_run_id: The run.
        seconds: After so long it may be not final the last time. Default: never.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        run = store.flow_run(flow_run_id)
        yield run
        left = _LOOK_SECONDS if deadline is None else deadline - time.monotonic()
        if run.state.is_final or left <= 0:
            return
        time.sleep(min(left, _LOOK_SECONDS))


def _plain(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = pydantic_core.to_jsonable_python(dict(parameters))
    except ValueError as error:  # pydantic's own is one, and circular values are another
        raise errors.ParameterError(
            f"The parameters of a run of deployment {name!r} must be JSON: {error}."
        ) from error
    return plain
