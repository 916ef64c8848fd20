"""Calls the hooks that flows and tasks declare."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from raflow._util import crash_point
from raflow.define import Flow, Task
from raflow.model import (
    BlockReader,
    FlowRun,
    GraphNode,
    State,
    StateName,
    TaskRun,
    TaskRunBlock,
)
from raflow.runtime.record._observer import Observer

_LOG = logging.getLogger("raflow.hooks")


class Hooks(Observer):
    """Calls hooks `(flow or task, its run, state)` one after the other, on a thread of its own.

    A hook that raises is logged; the run goes on. `close` waits for hooks still to be called.
    """

    def __init__(self, flow: Flow[..., Any]) -> None:
        """Take the hooks of a flow, of its subflows and of their tasks."""
        known = (flow, *flow.tasks())
        self._flows = {found.name: found for found in known if isinstance(found, Flow)}
        self._tasks = {found.name: found for found in known if isinstance(found, Task)}
        done = State(name=StateName.COMPLETED, at=0.0)
        self._completing = {name for name, task in self._tasks.items() if task.hooks_for(done)}
        self.undoes = frozenset(name for name, task in self._tasks.items() if task.rollback_hooks)
        """Names of the tasks that can be undone."""
        self._nodes: dict[tuple[str, int], GraphNode] = {}
        self._queue: queue.SimpleQueue[Callable[[], object] | Future[None] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    @property
    def are_there(self) -> bool:
        """Whether there is any hook to call."""
        owners = (*self._flows.values(), *self._tasks.values())
        return any(owner.has_hooks for owner in owners)

    def flow_run_changed(self, run: FlowRun) -> None:
        """Call the hooks of the flow for this state."""
        flow = self._flows.get(run.flow)
        if flow is not None:
            self._call(flow, run, run.state)

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """Remember calls, if some task has hooks for its completion."""
        if self._completing:
            self._nodes[flow_run_id, node.id] = node

    def task_runs_completed(self, block: TaskRunBlock) -> None:
        """Call the hooks of the tasks for their completion."""
        if not self._completing or block.origin:
            return
        reader = BlockReader(block)
        for position, key in enumerate(reader.keys):
            node = self._nodes[block.flow_run_id, key.node]
            if node.name in self._completing:
                self.task_run_changed(reader.task_run(position, key, node))

    def task_run_changed(self, run: TaskRun) -> None:
        """Call the hooks of the task for this state."""
        task = self._tasks.get(run.task)
        if task is not None:
            self._call(task, run, run.state)

    def undo(self, run: TaskRun) -> None:
        """Call the hooks that undo what a task run has done; returns when they have."""
        task = self._tasks[run.task]
        for hook in task.rollback_hooks:
            self._due(functools.partial(hook, task, run, run.state))
        self.settle()

    def settle(self) -> None:
        """Wait until every hook that is due by now has been called."""
        if self._thread is not None:
            done: Future[None] = Future()
            self._queue.put(done)
            done.result()

    def close(self) -> None:
        """Wait until every hook that is due has been called."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _call(
        self, owner: Flow[..., Any] | Task[..., Any], run: FlowRun | TaskRun, state: State
    ) -> None:
        for hook in owner.hooks_for(state):
            self._due(functools.partial(hook, owner, run, state))

    def _due(self, call: Callable[[], object]) -> None:
        self._queue.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="raflow-hooks", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            if isinstance(call, Future):
                call.set_result(None)
                continue
            crash_point("hooks.before_call")
            try:
                call()
            except Exception:
                _LOG.exception("A hook failed; the run goes on.")
            crash_point("hooks.after_call")
