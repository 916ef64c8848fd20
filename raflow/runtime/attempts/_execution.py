"""One attempt of a flow run: from its creation, or from where an earlier one has left it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Final

from raflow import engine, errors
from raflow._util import crash_point
from raflow.define import Flow, Lifter, active_flow, fill
from raflow.model import (
    FlowRun,
    FlowRunEvent,
    State,
    StateName,
    TaskRunKey,
    next_flow_run_state,
)
from raflow.runtime.attempts._children import Child, completed_child
from raflow.runtime.attempts._closing import Closing
from raflow.runtime.attempts._origin import Origin
from raflow.runtime.attempts._parts import Parts
from raflow.runtime.attempts._retries import Attempts, FlowRetries, Retry
from raflow.runtime.attempts._scope import FlowOutcome, Parent
from raflow.runtime.body import body_log, wait_async
from raflow.runtime.calls import Value
from raflow.runtime.driver import (
    BodyLeft,
    Fenced,
    LogWritten,
    PauseWanted,
    SuspendWanted,
    TimeIsUp,
    TryAgain,
)
from raflow.runtime.recall import Recall, Resumed, Reuse, recall_of, resume_child

_INTERRUPTED: Final = "interrupted from the keyboard"


class Execution:
    """One attempt of a flow run. Make it, then `run` it (or, on a loop, `run_async`), once."""

    def __init__(self, origin: Origin, retries: FlowRetries | None = None) -> None:
        """Create the run, or go on with one: nothing is recorded or started yet.

        Args:
            origin: What it begins with.
            retries: Counts the attempts. Default: what the record says.
        """
        self._origin = origin
        self._scope = origin.scope
        self._flow = origin.flow
        self._turn: Future[None] = Future()
        """Done once the body may begin."""
        self._parts = Parts(origin, self._child)
        self._driver = self._parts.driver
        self.id = self._parts.id
        past = [change.state for change in self._parts.past]
        self._retries = retries or FlowRetries(origin.flow.options.retry, past)
        self._closing = Closing(origin, self._parts, self._retries)

    @property
    def is_async(self) -> bool:
        """Whether it needs an event loop."""
        return self._flow.is_async

    def suspend(self, reason: str) -> None:
        """Ask the run to be suspended, from any thread."""
        self._driver.post(SuspendWanted(reason))

    def pause(self, reason: str) -> None:
        """Ask the run to pause, from any thread."""
        self._driver.post(PauseWanted(reason))

    def fence(self, error: errors.FencedError) -> None:
        """Have the run end here, from any thread: another process drives it by now."""
        self._driver.post(Fenced(error))

    def cancel(self, reason: str) -> None:
        """Ask the run to end, from any thread."""
        self._driver.cancel(reason)

    def run(self) -> FlowOutcome:
        """Run the body on this thread."""
        self._begin()
        value, error = None, None
        token = active_flow.set(self._parts.context)
        try:
            with self._body_log():
                self._turn.result()
                value = self._resolved(self._call_body())
        except KeyboardInterrupt:
            self.cancel(_INTERRUPTED)
        except BaseException as raised:
            error = raised
        finally:
            active_flow.reset(token)
        self._body_ended(error)
        self._wait_until_settled()
        return self._closing.finish(value, error)

    async def run_async(self) -> FlowOutcome:
        """Run an async body on this event loop."""
        await asyncio.to_thread(self._begin)
        value, error = None, None
        token = active_flow.set(self._parts.context)
        limit = asyncio.timeout(self._flow.options.timeout_seconds)
        try:
            with self._body_log():
                await wait_async(self._turn)
                self._turn.result()
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
        return await asyncio.to_thread(self._closing.finish, value, error)

    # Before -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Put the run on record, then let it begin: an accepted run is never lost.

        One that was not accepted from elsewhere, but begins where its code was called, need not
        wait for the record to be opened.
        """
        if self._origin.retry is not None:
            self._begin_again(self._origin.retry)
            return
        history, recorder = self._driver.history, self._scope.recorder
        resumed, claim = self._origin.resumed, self._origin.claim
        crash_point("run.before_record")
        now = self._scope.clock()
        if claim is not None:
            # That it runs is on record before its first line: else it may be given to another.
            recorder.go_on(self.id, claim.incarnation, claim.numbers)
            history.began(self._parts.version, State(name=StateName.RUNNING, at=now))
        elif resumed is not None:
            run = resumed.flow_run
            recorder.go_on(run.id, run.incarnation, resumed.recall.numbers)
            history.resumed(self._parts.version, self._resumed_state(run, now))
        else:
            history.created(self._parts.version)
        if not self._scope.store.is_open:
            recorder.ask(self._parts.known_pace).add_done_callback(self._tell_pace)
        elif self._origin.parent is None:
            try:
                recorder.flush()
            except (errors.StoreError, errors.FencedError):
                self._driver.close()
                raise
        crash_point("run.after_record")
        if resumed is None and claim is None:
            history.flow_run_entered(State(name=StateName.RUNNING, at=now), started_at=now)
        self._turn.set_result(None)
        self._start(now)

    def _begin_again(self, retry: Retry) -> None:
        """Begin to wait for the next attempt: from now on others may end the run, too."""
        resumed = self._origin.resumed
        assert resumed is not None
        incarnation, numbers = resumed.flow_run.incarnation, resumed.recall.numbers
        self._scope.recorder.go_on(self.id, incarnation, numbers)
        self._driver.remind(retry.due, TryAgain(retry.name, self._turn))
        self._driver.outcomes.until_the_end(self._turn)
        self._start(retry.due)

    def _start(self, at: float) -> None:
        """Have the run driven, whose body begins at a time."""
        if self._flow.options.timeout_seconds is not None:
            self._driver.remind(at + self._flow.options.timeout_seconds, TimeIsUp())
        self._driver.start(self._parts.children, self._parts.desk)
        self._parts.tenure.begin()

    @staticmethod
    def _resumed_state(run: FlowRun, now: float) -> State:
        name = next_flow_run_state(run.state.name, FlowRunEvent.RESUMED)
        message = f"resumed by process {run.pid} on {run.host}, number {run.incarnation} of the run"
        return State(name=name, at=now, message=message)

    def _tell_pace(self, found: Future[engine.Pace]) -> None:
        # A record that cannot be read is told of where it is written.
        if found.exception() is None:
            learned = found.result().learned
            self._driver.post(engine.PaceKnown(at=self._scope.clock(), learned=learned))

    def _body_log(self) -> AbstractContextManager[None]:
        return body_log(
            prints=self._flow.options.log_prints,
            level=self._scope.settings.log_number,
            keep=lambda line: self._driver.post(LogWritten(line)),
        )

    def _call_body(self) -> Any:
        args, kwargs = self._flow.form.apply(self._origin.parameters)
        return self._flow.fn(*args, **kwargs)

    # After --------------------------------------------------------------------------------------

    def _resolved(self, value: Any) -> Any:
        """Put the values of the futures in what the body returned."""
        lifter = Lifter(self._parts.context, f"the result of {self._flow.name!r}")
        lifted = lifter.lift(value, "return")
        values = {
            edge: self._parts.context.result(
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
        self._driver.pauses.body_ended()
        if isinstance(error, errors.RunSuspended) and self._driver.pauses.suspending:
            self._driver.post(BodyLeft())
        else:
            self._driver.post(engine.BodyEnded(at=at, raised=error is not None))

    def _wait_until_settled(self) -> None:
        while not self._driver.settled.done():
            try:
                self._driver.settled.exception()
            except KeyboardInterrupt:
                self.cancel(_INTERRUPTED)

    # The next -----------------------------------------------------------------------------------

    def again(self) -> Execution | None:
        """Return the attempt that follows this one, which is over; None if none does."""
        retry = self._closing.planned
        if retry is None:
            return None
        store, pauses = self._scope.store.open(), self._driver.pauses
        run = self._driver.history.flow_run
        resumed = Resumed(run, recall_of(store, run))
        origin = dataclasses.replace(
            self._origin,
            resumed=resumed,
            retry=retry,
            reuse=self._origin.reuse.anew() if self._origin.reuse else None,
            values=self._unkept(resumed.recall),
        )
        following = Execution(origin, self._retries)
        # What was asked of the run holds on.
        if pauses.suspending:
            following.suspend(pauses.suspending)
        elif pauses.paused:
            following.pause(pauses.paused)
        return following

    def _unkept(self, recall: Recall) -> dict[TaskRunKey, Value]:
        """Return the values that are not on record, and that this process still has."""
        lacking = (
            TaskRunKey(node.id, part.start)
            for node in recall.nodes
            for piece in recall.pieces(node.id)
            for part, has_value in piece.parts()
            if not has_value
        )
        found = ((run, self._driver.outcomes.value(run)) for run in lacking)
        return {run: value for run, value in found if value is not None}

    # Subflows -----------------------------------------------------------------------------------

    def _child(self, flow: Flow[..., Any], parameters: Mapping[str, Any], parent: Parent) -> Child:
        scope, resumed = self._scope, self._origin.resumed
        known = resumed.recall.child(parent.node) if resumed else None
        over = completed_child(known, flow, scope.signing_key) if known else None
        if over is not None:
            return over
        origin = Origin(
            scope=scope,
            flow=flow,
            parameters=parameters,
            parent=parent._replace(refreshes=self._origin.refreshes),
            resumed=None if known is None else resume_child(scope.store.open(), known, flow),
            reuse=self._reused_below(parent.node, flow),
        )
        return Attempts(Execution(origin))

    def _reused_below(self, node: int, flow: Flow[..., Any]) -> Reuse | None:
        """Return what a subflow call takes from the run that it had before."""
        reuse = self._origin.reuse
        before = reuse.child(node) if reuse else None
        if before is None or reuse is None or before.flow != flow.name:
            return None
        return reuse.below(Recall(self._scope.store.open(), before.id), before)
