"""The one entrance: run a flow here and now, on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from raflow import config
from raflow.define import Flow, Task
from raflow.model import Capacity
from raflow.results import check_storage, signing_key
from raflow.runtime._backends import open_backend
from raflow.runtime._collector import fewer_collections
from raflow.runtime._context import check_feasible
from raflow.runtime._execution import Execution
from raflow.runtime._hooks import Hooks
from raflow.runtime._observer import Observer
from raflow.runtime._recorder import Recorder
from raflow.runtime._retries import FlowRetries
from raflow.runtime._scope import FlowOutcome, Scope
from raflow.store import Store


def run_flow(
    flow: Flow[..., Any],
    parameters: Mapping[str, Any],
    *,
    settings: config.Settings | None = None,
    observers: Sequence[Observer] = (),
    backend: Literal["ray", "local"] | None = None,
    ray_address: str | None = None,
    entrypoint: str = "",
    flow_run_name: str | None = None,
) -> FlowOutcome:
    """Run a flow to its end on this thread.

    Whatever the flow does is in the outcome: nothing that its code raises is raised here, and
    Ctrl-C cancels the run cleanly.

    Args:
        flow: The flow.
        parameters: Valid parameters by name; see `Flow.validate`.
        settings: Default: from the environment.
        observers: Who wants to hear of the run while it runs.
        backend: Where task runs execute. Default: what the flow says, else the settings.
        ray_address: The Ray cluster to join. Default: the settings'.
        entrypoint: Where the flow was loaded from, for the record.
        flow_run_name: Default: what the flow says, else made from the run's id.

    Raises:
        InfeasibleResourcesError: A task asks for what the backend can never offer.
        BackendError: The backend cannot start or be reached.
        StoreError: The database cannot be opened or written.
        ResultStorageError: Result storage cannot be written.
        ConfigError: A setting cannot be used.
    """
    settings = settings or config.load()
    chosen = _chosen(flow, settings, backend, ray_address)
    retries = FlowRetries(flow.options.retry)
    with _opened(flow, chosen, observers, entrypoint) as scope:
        outcome = Execution(scope, flow, parameters, name=flow_run_name).run()
        while (delay := retries.delay_after(outcome.flow_run)) is not None:
            try:
                time.sleep(delay)
            except KeyboardInterrupt:
                break
            again = Execution(scope, flow, parameters, name=flow_run_name, retry=retries.reason)
            outcome = again.run()
        return outcome


async def run_flow_async(
    flow: Flow[..., Any],
    parameters: Mapping[str, Any],
    *,
    settings: config.Settings | None = None,
    observers: Sequence[Observer] = (),
    backend: Literal["ray", "local"] | None = None,
    ray_address: str | None = None,
    entrypoint: str = "",
    flow_run_name: str | None = None,
) -> FlowOutcome:
    """Run an async flow to its end on this event loop; see `run_flow`."""
    settings = settings or config.load()
    chosen = _chosen(flow, settings, backend, ray_address)
    retries = FlowRetries(flow.options.retry)
    opened = _opened(flow, chosen, observers, entrypoint)
    scope = await asyncio.to_thread(opened.__enter__)
    try:
        outcome = await Execution(scope, flow, parameters, name=flow_run_name).run_async()
        while (delay := retries.delay_after(outcome.flow_run)) is not None:
            await asyncio.sleep(delay)
            again = Execution(scope, flow, parameters, name=flow_run_name, retry=retries.reason)
            outcome = await again.run_async()
        return outcome
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)


def _chosen(
    flow: Flow[..., Any],
    settings: config.Settings,
    backend: Literal["ray", "local"] | None,
    ray_address: str | None,
) -> config.Settings:
    """Let the call's own choice win over the flow's, and the flow's over the environment's."""
    changes: dict[str, Any] = {
        "backend": backend or flow.options.backend,
        "ray_address": ray_address,
    }
    given = {name: value for name, value in changes.items() if value}
    return settings.model_copy(update=given)


@contextlib.contextmanager
def _opened(
    flow: Flow[..., Any],
    settings: config.Settings,
    observers: Sequence[Observer],
    entrypoint: str,
) -> Iterator[Scope]:
    """Open what a run needs, check all that can be checked before it costs anything, and close."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(fewer_collections)
        store = stack.enter_context(Store.open(settings.database, log_dir=settings.logs))
        check_storages(flow, settings)
        recorder = Recorder(store)
        stack.callback(recorder.close)
        hooks = Hooks(flow)
        stack.callback(hooks.close)
        backend = open_backend(settings.backend, settings)
        check_tasks(flow, backend.capacity())
        yield Scope(
            settings=settings,
            backend=backend,
            recorder=recorder,
            observers=(*observers, hooks) if hooks.are_there else tuple(observers),
            signing_key=signing_key(settings.home),
            paces=store.paces,
            clock=time.time,
            entrypoint=entrypoint,
        )


def check_tasks(flow: Flow[..., Any], capacity: Capacity) -> None:
    """Refuse a flow whose tasks ask for what the backend can never offer.

    Looks at the tasks that the flow's code names; the hints of a call are checked when it is made.

    Raises:
        InfeasibleResourcesError: Names the task, the hint and the remedy.
    """
    for task in flow.tasks():
        if isinstance(task, Task):
            check_feasible(task.name, task.options.resources, capacity)


def check_storages(flow: Flow[..., Any], settings: config.Settings) -> None:
    """Refuse result storage that cannot be written, before anything runs.

    Raises:
        ResultStorageError: Names the storage and the remedy.
    """
    declared = [flow, *(found for found in flow.tasks() if isinstance(found, Task | Flow))]
    own = {found.options.result.storage for found in declared}
    for storage in {settings.results, *filter(None, own)}:
        check_storage(storage)
