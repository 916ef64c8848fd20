"""Undoing what a flow run has done, in all of its processes, once it has failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Protocol

from raflow.model import (
    BlockReader,
    FlowRunEvent,
    NodeKind,
    State,
    StateName,
    TaskRun,
    TaskRunEvent,
    TaskRunKey,
    next_task_run_state,
)

if TYPE_CHECKING:
    from raflow.runtime._ports import Past, RunStore

UNDOING: Final = frozenset({FlowRunEvent.FAILED, FlowRunEvent.TIMED_OUT, FlowRunEvent.CANCELLED})
"""Endings after which what was done is undone. A run that crashed was interrupted: it has not
failed, and whoever resumes it goes on with all that it has done."""

_UNDONE: Final = "what it did was undone, as its flow run came to no good end"
_DONE: Final = frozenset({StateName.COMPLETED, StateName.RECOVERED})
"""What a value from the cache stands for was done in another run."""


class Undoer(Protocol):
    """Knows how to undo what tasks have done."""

    @property
    def undoes(self) -> Collection[str]:
        """Names of the tasks that can be undone."""

    def undo(self, run: TaskRun) -> None:
        """Undo what a task run has done; returns when that is done."""


def roll_back(
    store: RunStore, flow_run_id: str, undoer: Undoer, note: Callable[[TaskRun], None]
) -> int:
    """Undo what a flow run has done, the last one first.

    Args:
        store: The record; everything that the run has done is there.
        flow_run_id: The flow run. Its subflows are not looked at: they have ends of their own.
        undoer: Undoes it.
        note: Told of each task run that was undone, before the next one is. What it was told
            before this process died is not undone again.

    Returns:
        How many task runs were undone.
    """
    done = done_by(store.recall, flow_run_id, undoer.undoes)
    # First of all: nobody is to find a value any more whose making is being undone.
    store.cache.withdraw(flow_run_id, [run.key for run in done])
    for run in done:
        undoer.undo(run)
        note(run)
    return len(done)


def done_by(past: Past, flow_run_id: str, tasks: Collection[str]) -> list[TaskRun]:
    """Return the runs of some tasks that have completed in a flow run, the last one first."""
    every = past.nodes(flow_run_id) if tasks else []
    nodes = {n.id: n for n in every if n.name in tasks and n.kind is not NodeKind.SUBFLOW}
    found: dict[TaskRunKey, TaskRun] = {}
    for block in past.blocks(flow_run_id) if nodes else ():
        reader = BlockReader(block)
        if any(chunk.node in nodes for chunk in block.chunks):
            for position, key in enumerate(reader.keys):
                if key.node in nodes:
                    found[key] = reader.task_run(position, key, nodes[key.node])
    for row in past.rows(flow_run_id) if nodes else ():
        if row.key.node in nodes:
            found[row.key] = row
    done = [run for run in found.values() if run.state.name in _DONE]
    return sorted(done, key=_when, reverse=True)


def rolled_back(run: TaskRun, at: float) -> TaskRun:
    """Return a task run that was undone."""
    name = next_task_run_state(run.state.name, TaskRunEvent.ROLLED_BACK, attempt=run.attempts)
    return dataclasses.replace(run, state=State(name=name, at=at, message=_UNDONE))


def _when(run: TaskRun) -> tuple[float, TaskRunKey]:
    return run.ended_at or 0.0, run.key
