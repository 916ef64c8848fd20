"""Running a deployment from Python."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from raflow import config
from raflow.define import active_flow, active_task
from raflow.model import FlowRun, StateType

if TYPE_CHECKING:
    from raflow.store import Store

_LOOK_SECONDS: Final = 0.25


def run_deployment(
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
    """Have a worker run a deployment; see `raflow.run_deployment`."""
    # Slow to load, and nothing that a flow needs.
    from raflow.runtime.deploying import order_run, until_final  # noqa: PLC0415

    at = None if begins_at is None else begins_at.timestamp()
    asked = [name, parameters, flow_run_name, list(tags), at is not None]
    with _open() as store:
        for key in (idempotency_key,) if idempotency_key else _keys(asked):
            ordered = order_run(
                store,
                name,
                parameters,
                begins_at=at,
                flow_run_name=flow_run_name,
                tags=tags,
                idempotency_key=key,
            )
            if ordered.is_new or not _is_lost(store, ordered.flow_run_id):
                break
        seconds = timeout_seconds if wait else 0.0
        *_, last = until_final(store, ordered.flow_run_id, seconds)
    return last


def _keys(asked: Sequence[object]) -> Iterator[str]:
    """Yield the keys of an order that gives none.

    A body or a task that is run again finds what it has ordered the time before. Where that did not
    complete it orders once more, as it calls tasks once more that did not complete.
    """
    whose = active_task.get() or active_flow.get()
    if whose is None:
        yield ""
        return
    occasion = whose.occasion(json.dumps(asked, sort_keys=True, default=repr))
    for number in itertools.count():
        yield f"{occasion}/{number}"


def _is_lost(store: Store, flow_run_id: str) -> bool:
    state = store.flow_run(flow_run_id).state
    return state.is_final and state.type is not StateType.COMPLETED


async def run_deployment_async(
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
    """Do as `run_deployment`, without keeping the event loop waiting."""
    run = await asyncio.to_thread(
        run_deployment,
        name,
        parameters,
        begins_at=begins_at,
        flow_run_name=flow_run_name,
        tags=tags,
        idempotency_key=idempotency_key,
        wait=False,
        timeout_seconds=None,
    )
    if not wait or run.state.is_final:
        return run
    with contextlib.suppress(TimeoutError):
        # Not in a thread that waits: it would go on when this is cancelled.
        async with asyncio.timeout(timeout_seconds):
            store = await asyncio.to_thread(_open)
            try:
                while not run.state.is_final:
                    await asyncio.sleep(_LOOK_SECONDS)
                    run = await asyncio.to_thread(store.flow_run, run.id)
            finally:
                store.close()
    return run


def _open() -> Store:
    from raflow.store import Store  # noqa: PLC0415  # as above

    settings = config.load()
    settings.check_local("run_deployment()")
    embedded = not settings.database_url
    return Store.open(settings.database, log_dir=settings.logs, create=embedded)
