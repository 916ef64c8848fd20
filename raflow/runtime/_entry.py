"""The one entrance: run a flow here and now, on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, cast

from raflow import config
from raflow.define import Flow, Task
from raflow.model import Capacity
from raflow.results import check_storage, signing_key
from raflow.runtime._backends import open_backend
from raflow.runtime._collector import fewer_collections
from raflow.runtime.attempts import Attempts, Execution, FlowOutcome, Origin, Scope
from raflow.runtime.body import check_feasible
from raflow.runtime.recall import (
    Choice,
    check_rerun,
    check_resumable,
    new_parameters,
    parameters_of,
    resume_root,
    reuse_again,
    reuse_of,
)
from raflow.runtime.record import Hooks, Observer, Recorder, lend_store


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
    chosen = chosen_settings(flow, settings, backend, ray_address)
    with opened_scope(flow, chosen, observers, entrypoint) as scope:
        origin = Origin(scope=scope, flow=flow, parameters=parameters, name=flow_run_name)
        return Attempts(Execution(origin)).run()


def resume_flow(
    flow: Flow[..., Any],
    flow_run_id: str,
    *,
    allow_new_code: bool = False,
    force: bool = False,
    taken: int | None = None,
    settings: config.Settings | None = None,
    observers: Sequence[Observer] = (),
    ray_address: str | None = None,
    entrypoint: str = "",
) -> FlowOutcome:
    """Go on, on this thread, with a flow run whose process has died or has been suspended.

    The flow runs again from its first line, and every call whose value is on record is answered
    with that. What was lost is computed again as far as it is needed.

    Args:
        flow: The flow.
        flow_run_id: Its run: the id, or what `Store.find_flow_run` takes.
        allow_new_code: Whether its code may have changed since. Default: no.
        force: Whether to take over a run that another process still drives. Default: no.
        taken: The number of this process among those of the run, of one that it has already:
            `Claim.incarnation`. Default: it takes the run over.
        settings: Default: from the environment.
        observers: Who wants to hear of the run while it runs.
        ray_address: The Ray cluster to join. Default: the settings'.
        entrypoint: Where the flow was loaded from, for the record.

    Raises:
        NotFoundError: No such flow run was recorded.
        ResumeError: The run cannot be resumed, or not with this code.
        RunIsAliveError: Another process drives it.
        FencedError: It was taken from this process before it went on.
    """
    settings = settings or config.load()
    with lend_store(settings, at_once=True) as store:
        run = check_resumable(store.open(), flow_run_id, flow, allow_new_code=allow_new_code)
        backend = cast("Literal['ray', 'local']", run.backend)
    chosen = chosen_settings(flow, settings, backend, ray_address)
    with opened_scope(flow, chosen, observers, entrypoint) as scope:
        store = scope.store
        resumed = resume_root(
            store.open(),
            flow_run_id,
            flow,
            force=force,
            allow_new_code=allow_new_code,
            taken=taken,
        )
        parameters = parameters_of(resumed.flow_run, scope.signing_key)
        reuse = reuse_again(store.open(), resumed.flow_run, flow)
        origin = Origin(scope=scope, flow=flow, parameters=parameters, resumed=resumed, reuse=reuse)
        return Attempts(Execution(origin)).run()


def rerun_flow(
    flow: Flow[..., Any],
    flow_run_id: str,
    *,
    from_: Sequence[str] = (),
    failed: bool = False,
    parameters: Mapping[str, Any] = MappingProxyType({}),
    allow_new_code: bool = False,
    settings: config.Settings | None = None,
    observers: Sequence[Observer] = (),
    ray_address: str | None = None,
    entrypoint: str = "",
    flow_run_name: str | None = None,
) -> FlowOutcome:
    """Run a flow anew on this thread, with what an earlier run of it has left.

    It is a flow run of its own, with the parameters of the earlier one. Task runs that are not to
    run again are recorded as Cached, with the values that they had.

    Args:
        flow: The flow.
        flow_run_id: The earlier run: the id, or what `Store.find_flow_run` takes.
        from_: What runs again, with all that depends on it: tasks, calls and task runs by name.
        failed: Whether what did not complete runs again. Default: no; but then so it does, too.
        parameters: Those that are to be others than before. What depends on them runs again.
        allow_new_code: Whether the code may have changed since. If it has, what has other code, or
            other arguments, runs again. Default: no.
        settings: Default: from the environment.
        observers: Who wants to hear of the run while it runs.
        ray_address: The Ray cluster to join. Default: the settings'.
        entrypoint: Where the flow was loaded from, for the record.
        flow_run_name: Default: what the flow says, else made from the run's id.

    Raises:
        NotFoundError: No such flow run was recorded, or it has no call of such a name.
        ResumeError: The run cannot be rerun, or not with this code; or nothing was chosen.
        RunIsAliveError: It is still going on.
        ParameterError: The parameters do not fit.
    """
    settings = settings or config.load()
    choice = Choice(tuple(from_), failed, parameters)
    with lend_store(settings, at_once=True) as opened:
        store = opened.open()
        run = check_rerun(store, flow_run_id, flow, choice, allow_new_code=allow_new_code)
        reuse = reuse_of(store, run, flow, choice)
    given = new_parameters(run, flow, choice, signing_key(settings.home))
    backend = cast("Literal['ray', 'local']", run.backend)
    chosen = chosen_settings(flow, settings, backend, ray_address)
    with opened_scope(flow, chosen, observers, entrypoint) as scope:
        origin = Origin(scope=scope, flow=flow, parameters=given, name=flow_run_name, reuse=reuse)
        return Attempts(Execution(origin)).run()


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
    chosen = chosen_settings(flow, settings, backend, ray_address)
    opened = opened_scope(flow, chosen, observers, entrypoint)
    scope = await asyncio.to_thread(opened.__enter__)
    try:
        origin = Origin(scope=scope, flow=flow, parameters=parameters, name=flow_run_name)
        return await Attempts(Execution(origin)).run_async()
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)


def chosen_settings(
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
def opened_scope(
    flow: Flow[..., Any],
    settings: config.Settings,
    observers: Sequence[Observer],
    entrypoint: str,
) -> Iterator[Scope]:
    """Open what a run needs, check all that can be checked before it costs anything, and close."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(fewer_collections)
        # Beside the start of Ray it does not count; without it, opening the record would be what
        # the first task waits for.
        at_once = settings.backend != "local"
        store = stack.enter_context(lend_store(settings, at_once=at_once))
        check_storages(flow, settings)
        recorder = Recorder(store)
        stack.callback(recorder.close)
        hooks = Hooks(flow)
        stack.callback(hooks.close)
        backend = open_backend(settings.backend, settings)
        capacity = backend.capacity()
        check_tasks(flow, capacity)
        yield Scope(
            settings=settings,
            backend=backend,
            capacity=capacity,
            recorder=recorder,
            hooks=hooks,
            observers=(*observers, hooks) if hooks.are_there else tuple(observers),
            signing_key=signing_key(settings.home),
            store=store,
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
