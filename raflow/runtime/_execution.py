"""One flow run from its creation to its final state."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from raflow import engine, errors, execute
from raflow.define import Flow, Lifter, active_flow, fill
from raflow.model import (
    FlowRun,
    FlowRunEvent,
    ResultInfo,
    State,
    StateName,
    TaskRunKey,
    Trigger,
    next_flow_run_state,
)
from raflow.results import Keeper
from raflow.runtime._body_log import body_log
from raflow.runtime._children import Children
from raflow.runtime._context import RunContext, wait_async
from raflow.runtime._driver import Driver
from raflow.runtime._ending import Ending, ending
from raflow.runtime._failures import error_info
from raflow.runtime._history import History
from raflow.runtime._identity import new_flow_run, version_record
from raflow.runtime._messages import LogWritten, TimeIsUp
from raflow.runtime._scope import FlowOutcome, Parent, Scope

_BODY: Final = TaskRunKey(-1)
_INTERRUPTED: Final = "interrupted from the keyboard"


class Execution:
    """One flow run. Make it, then `run` it (or, on an event loop, `run_async`), once."""

    def __init__(
        self,
        scope: Scope,
        flow: Flow[..., Any],
        parameters: Mapping[str, Any],
        *,
        name: str | None = None,
        parent: Parent | None = None,
        retry: str = "",
    ) -> None:
        """Create the run: nothing is recorded or started yet.

        Args:
            scope: What it shares with its parent and children.
            flow: The flow.
            parameters: Valid parameters, by name.
            name: Name of the run. Default: what the flow says, else made from its id.
            parent: What it stands for, if it is a subflow. Default: nothing.
            retry: Which retry it is of which run. Default: none.
        """
        now = scope.clock()
        self._scope = scope
        self._flow = flow
        self._parameters = parameters
        self._is_child = parent is not None
        self._version = version_record(flow, scope.entrypoint, now)
        run = dataclasses.replace(
            new_flow_run(flow, self._version, parameters, name=name, reason=retry, now=now),
            backend=scope.backend.name,
            trigger=_trigger(parent, retry),
            parent_id=parent.flow_run_id if parent else None,
            parent_node=parent.node if parent else None,
        )
        self.id = run.id
        self._keeper = Keeper(
            flow_run_id=run.id, storage=scope.settings.results, signing_key=scope.signing_key
        )
        environment = execute.RunEnvironment(
            flow_run_id=run.id,
            flow=flow.name,
            flow_run_name=run.name,
            keeper=self._keeper,
            sys_path=tuple(path for path in sys.path if path),
            log_level=scope.settings.log_number,
            parameters=run.parameters,
        )
        self._driver = Driver(
            backend=scope.backend,
            environment=environment,
            history=History(run, scope.recorder, scope.observers),
            pace=_pace(scope, run),
            clock=scope.clock,
            cancel_grace=scope.settings.cancel_grace_seconds,
        )
        self._context = RunContext(self._driver, scope.backend.capacity())
        self._children = Children(self._driver, self._child)

    def _child(
        self, flow: Flow[..., Any], parameters: Mapping[str, Any], parent: Parent, retry: str
    ) -> Execution:
        return Execution(self._scope, flow, parameters, parent=parent, retry=retry)

    def cancel(self, reason: str) -> None:
        """Ask the run to end, from any thread."""
        self._driver.cancel(reason)

    def run(self) -> FlowOutcome:
        """Run the body on this thread; an async one on an event loop of its own."""
        if self._flow.is_async:
            return asyncio.run(self.run_async())
        self._begin()
        value, error = None, None
        token = active_flow.set(self._context)
        try:
            with self._body_log():
                value = self._resolved(self._call_body())
        except KeyboardInterrupt:
            self.cancel(_INTERRUPTED)
        except BaseException as raised:
            error = raised
        finally:
            active_flow.reset(token)
        self._body_ended(error)
        self._wait_until_settled()
        return self._finish(value, error)

    async def run_async(self) -> FlowOutcome:
        """Run an async body on this event loop."""
        await asyncio.to_thread(self._begin)
        value, error = None, None
        token = active_flow.set(self._context)
        limit = asyncio.timeout(self._flow.options.timeout_seconds)
        try:
            with self._body_log():
                async with limit:
                    value = await self._call_body()
                    value = await asyncio.to_thread(self._resolved, value)
        except asyncio.CancelledError:
            self.cancel(_INTERRUPTED)
        except BaseException as raised:
            error = raised
        finally:
            active_flow.reset(token)
        if limit.expired():
            self._driver.post(TimeIsUp())
        self._body_ended(error)
        await wait_async(self._driver.settled)
        return await asyncio.to_thread(self._finish, value, error)

    # Before -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Put the run on record, then let it begin: an accepted run is never lost."""
        history, recorder = self._driver.history, self._scope.recorder
        history.created(self._version)
        if not self._is_child:
            try:
                recorder.flush()
            except errors.StoreError:
                self._driver.close()
                raise
        now = self._scope.clock()
        history.flow_run_entered(State(name=StateName.RUNNING, at=now), started_at=now)
        if self._flow.options.timeout_seconds is not None:
            self._driver.limit(now + self._flow.options.timeout_seconds)
        self._driver.start(self._children)

    def _body_log(self) -> AbstractContextManager[None]:
        return body_log(
            prints=self._flow.options.log_prints,
            level=self._scope.settings.log_number,
            keep=lambda line: self._driver.post(LogWritten(line)),
        )

    def _call_body(self) -> Any:
        args, kwargs = self._flow.form.apply(self._parameters)
        return self._flow.fn(*args, **kwargs)

    # After --------------------------------------------------------------------------------------

    def _resolved(self, value: Any) -> Any:
        """Put the values of the futures in what the body returned."""
        lifter = Lifter(self._context, f"the result of {self._flow.name!r}")
        lifted = lifter.lift(value, "return")
        values = {
            edge: self._context.result(
                dependency.source,
                dependency.source_item,
                timeout=None,
                raise_on_failure=not dependency.allow_failure,
            )
            for edge, dependency in enumerate(lifter.dependencies)
        }
        return fill({"return": lifted}, values)["return"]

    def _body_ended(self, error: BaseException | None) -> None:
        at = self._scope.clock()
        self._driver.post(engine.BodyEnded(at=at, raised=error is not None))

    def _wait_until_settled(self) -> None:
        while not self._driver.settled.done():
            try:
                self._driver.settled.exception()
            except KeyboardInterrupt:
                self.cancel(_INTERRUPTED)

    def _finish(self, value: Any, error: BaseException | None) -> FlowOutcome:
        self._driver.close()
        end = self._ending(error)
        result = None
        if end.error is None:
            end, result = self._keep(value, end)
        now = self._scope.clock()
        current = self._driver.history.flow_run.state.name
        name = next_flow_run_state(current, end.event)
        self._driver.history.flow_run_entered(
            State(name=name, at=now, message=end.message),
            ended_at=now,
            error=error_info(end.error) if end.error is not None else None,
            result=result,
        )
        if not self._is_child:
            self._scope.recorder.flush()
        run = self._driver.history.flow_run
        return FlowOutcome(flow_run=run, value=value if result else None, error=end.error)

    def _ending(self, error: BaseException | None) -> Ending:
        broken = self._driver.settled.exception()
        if broken is not None:
            message = f"raflow itself failed: {type(broken).__name__}: {broken}"
            return Ending(event=FlowRunEvent.CRASHED, message=message, error=broken)
        settled = self._driver.settled.result()
        return ending(
            flow=self._flow.name,
            body_error=error,
            cancelled=settled.cancelled,
            cancel_reason=self._driver.cancel_reason,
            unhandled=[self._driver.outcomes.told(run) for run in settled.unhandled],
        )

    def _keep(self, value: Any, end: Ending) -> tuple[Ending, ResultInfo | None]:
        """Keep what the flow returned, as its options say."""
        try:
            return end, self._keeper.keep(value, self._flow.options.result, run=_BODY, attempt=1)
        except errors.RaflowError as error:
            message = f"The result of {self._flow.name!r} cannot be kept: {error}"
            return Ending(event=FlowRunEvent.FAILED, message=message, error=error), None


def _pace(scope: Scope, run: FlowRun) -> engine.Pace:
    known = scope.paces(run.flow, run.fingerprint)
    return engine.Pace(
        {task: engine.Learned(pace.seconds, pace.bytes) for task, pace in known.items()}
    )


def _trigger(parent: Parent | None, retry: str) -> Trigger:
    if retry:
        return Trigger.RETRY
    return Trigger.PARENT if parent else Trigger.MANUAL
