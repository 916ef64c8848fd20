"""Brings flow runs to an end whose process is gone.

Whoever does that takes the run over first, so that nothing of an old process counts any more. It
ends what that one has left behind on this machine, calls the hooks, and records the end last: if it
dies on the way, the run is without a process again, and the next one does all of it once more. So
hooks are called at least once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raflow import errors
from raflow._util import crash_point
from raflow.define import Flow
from raflow.model import (
    FlowRun,
    FlowRunEvent,
    Record,
    RecordBatch,
    State,
    StateChange,
    StateName,
    StateType,
    TaskRun,
    TaskRunEvent,
    TaskRunKey,
    next_flow_run_state,
    next_task_run_state,
)
from raflow.runtime.ending._ending import TIME_IS_UP
from raflow.runtime.ending._litter import remove_litter
from raflow.runtime.ending._rollback import UNDOING, roll_back, rolled_back
from raflow.runtime.leases import LEASE_SECONDS, Sighting, end_left_behind, sight, this_process
from raflow.runtime.record import Hooks, Steward

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_RENEW_SECONDS: Final = 2.0
_OPEN: Final = frozenset(kind for kind in StateType if not kind.is_final)
_EVENTS: Final = {
    StateName.RUNNING: TaskRunEvent.CRASHED,
    StateName.RETRYING: TaskRunEvent.CRASHED,
    StateName.SUBMITTED: TaskRunEvent.LOST,
}
"""What a crash is to task runs in these states; to all others: that they were cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """A flow run that was brought to its end without a process of its own."""

    flow_run: FlowRun
    """As it is recorded now."""
    sighting: Sighting
    """What was known of its process."""
    ended: int
    """How many processes were ended that had been left behind on this machine."""
    undone: int
    """How many task runs were undone."""


def reap(
    store: RunStore,
    run: FlowRun,
    flow: Flow[..., Any] | None,
    *,
    undo: bool = False,
    results: str = "",
    taken: int | None = None,
) -> Reaped:
    """Record that a flow run has crashed whose process is gone; it can be resumed.

    One that was being cancelled is recorded as Cancelled.

    Args:
        store: The record.
        run: A run that is under way, and no subflow.
        flow: Its flow, whose hooks are called. None: nobody has it, so they are not.
        undo: Whether to undo what has completed, with the hooks `on_rollback`, although the run has
            crashed: if it is resumed, it does that again. Default: only if it was being cancelled.
        results: Result storage: what is there of the run, and not on record, is removed. Default:
            only where recorded values of it are.
        taken: The number of this process among those of the run, if it has the run already.

    Raises:
        RunIsAliveError: A process drives it.
        ResumeError: It has ended.
        FencedError: Another process has taken it over meanwhile.
    """
    sighting = sight(store, run, taken=taken is not None)
    finder = f"found by process {os.getpid()} on host {socket.gethostname()!r}"
    message = f"{_capital(sighting.words)}. This was {finder}."
    event = FlowRunEvent.CRASHED
    if run.state.name is StateName.CRASHED:
        message = run.state.message  # who noted that has left its own sign of life since
    elif run.state.name is StateName.CANCELLING:
        event = FlowRunEvent.CANCELLED
        if run.state.message == TIME_IS_UP:
            event = FlowRunEvent.TIMED_OUT
        message = f"{_capital(run.state.message)}. Before that was done: {sighting.words}."
    return _Ending(
        store, flow, sighting, event, message, undo=undo, results=results, taken=taken
    ).carry_out(run)


def cancel_on_record(
    store: RunStore,
    run: FlowRun,
    flow: Flow[..., Any] | None,
    *,
    reason: str,
    results: str = "",
    taken: int | None = None,
) -> Reaped:
    """Record that a flow run was cancelled that no process drives.

    Args:
        store: The record.
        run: A run that is not over, and no subflow; it may be suspended.
        flow: Its flow, whose hooks are called. None: nobody has it, so they are not.
        reason: Who wanted it, and why.
        results: As for `reap`.
        taken: As for `reap`.

    Raises:
        RunIsAliveError: A process drives it.
        ResumeError: It has ended.
        FencedError: Another process has taken it over meanwhile.
    """
    told = f"Flow {run.flow!r} was cancelled: {reason}. No process drove it any more."
    ending = _Ending(
        store,
        flow,
        sight(store, run, taken=taken is not None),
        FlowRunEvent.CANCELLED,
        told,
        undo=True,
        reason=reason,
        results=results,
        taken=taken,
    )
    return ending.carry_out(run)


class _Ending:
    """The end of a flow run and of its subflows."""

    def __init__(
        self,
        store: RunStore,
        flow: Flow[..., Any] | None,
        sighting: Sighting,
        event: FlowRunEvent,
        message: str,
        *,
        undo: bool,
        reason: str = "",
        results: str = "",
        taken: int | None = None,
    ) -> None:
        self._store = store
        self._taken = taken
        self._hooks = None if flow is None else Hooks(flow)
        self._sighting = sighting
        self._event = event
        self._message = message
        self._reason = reason or message
        self._storages = [results] if results else []
        self._undo = undo or event in UNDOING
        self._ended = 0
        self._undone = 0

    def carry_out(self, run: FlowRun) -> Reaped:
        """Take the run over, and bring it to its end."""
        with contextlib.ExitStack() as stack:
            if self._hooks is not None:
                stack.callback(self._hooks.close)
            incarnation = stack.enter_context(self._taken_over(run))
            crash_point("reaper.before_end")
            final = self._end(run, incarnation)
        return Reaped(
            flow_run=final, sighting=self._sighting, ended=self._ended, undone=self._undone
        )

    @contextlib.contextmanager
    def _taken_over(self, run: FlowRun) -> Iterator[int]:
        """Have a flow run for oneself, however long it takes."""
        leases = self._store.leases
        if self._taken is None:
            over = self._sighting.over
            incarnation = leases.begin_incarnation(
                run.id, **this_process(), seconds=LEASE_SECONDS, gone=over
            )
        else:
            incarnation = self._taken
            leases.renew(run.id, incarnation, seconds=LEASE_SECONDS, **this_process())

        def renew() -> float | None:
            try:
                leases.renew(run.id, incarnation, seconds=LEASE_SECONDS)
            except errors.FencedError:
                return None  # what is to be recorded is refused, which says so
            return _RENEW_SECONDS

        steward = Steward()
        steward.after(_RENEW_SECONDS, renew)
        try:
            yield incarnation
        finally:
            steward.close()

    def _end(self, run: FlowRun, incarnation: int) -> FlowRun:
        # Read again: whoever drove it may have written until it was shut out.
        run = self._store.find_flow_run(run.id)
        if not self._is_wanted(run):
            self._store.leases.let_go(run.id, incarnation)
            return run
        if run.parent_id is None:
            self._ended = end_left_behind(self._store, run, self._sighting)
        for child in self._store.flow_runs(parent=run.id, limit=None):
            if self._is_wanted(child):
                # Whoever has the parent has it, too.
                own = self._store.leases.begin_incarnation(
                    child.id, **this_process(), seconds=LEASE_SECONDS, force=True
                )
                self._end(child, own)
        rows = [self._over(row) for row in self._open(run)]
        states = self._states(run)
        final = dataclasses.replace(
            run, state=states[-1], ended_at=states[-1].at, incarnation=incarnation
        )
        record = _Record(self._store, run, incarnation)
        self._call_hooks(final, rows, record, again=run.state.is_final)
        remove_litter(self._store, final, self._storages, look_further=True)
        crash_point("reaper.before_final_state")
        record.write(*rows, final, flow_states=states)
        return final

    def _open(self, run: FlowRun) -> Sequence[TaskRun]:
        """Return the task runs that have not ended.

        A cancelled run leaves none behind that is Pending, not even calls of which no more is
        recorded than that they were made; those of a crashed one may yet begin.
        """
        if self._event is not FlowRunEvent.CRASHED:
            return self._store.task_runs(run.id, state_types=_OPEN)
        return [row for row in self._store.recall.rows(run.id) if not row.state.is_final]

    def _is_wanted(self, run: FlowRun) -> bool:
        """Whether there is something to bring to an end, or (of a crashed run) to undo."""
        if run.state.is_final:
            return self._undo and run.state.name is StateName.CRASHED
        return run.state.name is not StateName.SUSPENDED or self._event in UNDOING

    def _call_hooks(
        self, final: FlowRun, rows: list[TaskRun], record: _Record, *, again: bool
    ) -> None:
        hooks = self._hooks
        if hooks is None:
            return
        for row in rows:
            hooks.task_run_changed(row)
        hooks.settle()
        if self._undo:
            self._undone += roll_back(self._store, final.id, hooks, record.undone)
        if not again:
            hooks.flow_run_changed(final)
            hooks.settle()

    def _over(self, row: TaskRun) -> TaskRun:
        """Return what becomes of a task run that had not ended."""
        event, name = TaskRunEvent.CANCELLED, row.state.name
        if self._event is FlowRunEvent.CRASHED:
            event = _EVENTS.get(name, event)
        following = next_task_run_state(name, event, attempt=row.attempts)
        told = self._message
        if self._event is FlowRunEvent.CRASHED:
            known = {
                TaskRunEvent.CRASHED: "it ran when its flow run lost its process",
                TaskRunEvent.LOST: "its flow run lost its process; it may have begun",
                TaskRunEvent.CANCELLED: "it had not begun when its flow run lost its process",
            }
            told = f"{_capital(known[event])}: {self._sighting.words}."
        now = time.time()
        return dataclasses.replace(
            row, state=State(name=following, at=now, message=told), ended_at=now
        )

    def _states(self, run: FlowRun) -> list[State]:
        """Return the states that lead to the end."""
        states, name, event, now = [], run.state.name, self._event, time.time()
        if event is not FlowRunEvent.CRASHED and name in {StateName.PENDING, StateName.SUSPENDED}:
            event = FlowRunEvent.CANCELLED
        elif event is FlowRunEvent.CANCELLED and name is not StateName.CANCELLING:
            name = next_flow_run_state(name, FlowRunEvent.CANCEL_ASKED)
            states.append(State(name=name, at=now, message=self._reason))
        elif name is StateName.CRASHED:
            name = next_flow_run_state(name, FlowRunEvent.RESUMED)
            states.append(State(name=name, at=now, message="taken over to undo what it did"))
        name = next_flow_run_state(name, event)
        return [*states, State(name=name, at=now, message=self._message)]


class _Record:
    """Writes for a flow run that was taken over."""

    def __init__(self, store: RunStore, run: FlowRun, incarnation: int) -> None:
        self._store = store
        self._run = run
        self._incarnation = incarnation
        numbers = store.recall.numbers(run.id)
        self._batch = numbers.batch
        self._change = numbers.change

    def undone(self, run: TaskRun) -> None:
        """Record that a task run was undone."""
        self.write(rolled_back(run, time.time()))

    def write(self, *records: TaskRun | FlowRun, flow_states: list[State] | None = None) -> None:
        """Write rows, and that they have entered their states.

        Args:
            *records: The rows.
            flow_states: The states that the flow run goes through. Default: none.
        """
        entered: list[tuple[TaskRunKey | None, State]] = [(None, s) for s in flow_states or ()]
        entered += [(row.key, row.state) for row in records if isinstance(row, TaskRun)]
        changes: list[Record] = [
            StateChange(flow_run_id=self._run.id, number=number, key=key, state=state)
            for number, (key, state) in enumerate(entered, self._change)
        ]
        self._store.apply(
            RecordBatch(
                flow_run_id=self._run.id,
                seq=self._batch,
                records=(*records, *changes),
                incarnation=self._incarnation,
            )
        )
        self._batch += 1
        self._change += len(entered)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
