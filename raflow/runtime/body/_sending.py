"""How calls of tasks are sent: made once for a task and its options, and checked then."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from raflow import errors, execute
from raflow.define import Definition, Task
from raflow.model import Capacity, Resources, ResultPolicy, TaskOptions, shortfall
from raflow.runtime.calls import code_of
from raflow.runtime.driver import Driver


class Sending:
    """Knows how the calls of each task are sent."""

    def __init__(self, driver: Driver, capacity: Capacity, *, keep_all: bool) -> None:
        """Know nothing yet; with `keep_all` values are kept at any size unless tasks say more."""
        self._driver = driver
        self._capacity = capacity
        self._keep_all = keep_all
        self._known: dict[int, Sent] = {}
        self._codes: dict[int, tuple[object, str]] = {}
        self._feasible: set[Resources] = set()

    def of(self, task: Task[..., Any], options: TaskOptions) -> Sent:
        """Return how calls of a task with these options are sent; made once, and checked then."""
        known = self._known.get(id(task))
        if known is None or known.options is not options:
            if options.resources not in self._feasible:
                check_feasible(task.name, options.resources, self._capacity)
                self._feasible.add(options.resources)
            settings = execute.CallSettings(
                self._result_policy(options),
                options.timeout_seconds,
                options.log_prints,
                options.concurrency_per_worker,
            )
            code = self.code(task)
            known = Sent(task, options, self._function(task), settings, code)
            self._known[id(task)] = known
        return known

    def code(self, target: Definition) -> str:
        """Return the fingerprint of the code of a task or flow; empty if it cannot be read."""
        known = self._codes.get(id(target.fn))
        if known is None:
            # The function is kept, and so its `id`.
            known = self._codes[id(target.fn)] = target.fn, code_of(target)
        return known[1]

    def _result_policy(self, options: TaskOptions) -> ResultPolicy:
        policy = options.result
        if self._keep_all and policy.persist is None:
            return dataclasses.replace(policy, persist=True)
        return policy

    def _function(self, task: Task[..., Any]) -> execute.FunctionHandle:
        """Make a task known to the backend."""
        # First of all, because it settles how objects of the task's module travel.
        function = execute.TaskFunction(
            name=task.name,
            key=f"{self._driver.history.flow_run.id}/{len(self._known)}",
            fn=task.fn,
            form=task.form,
            run_if=task.run_if,
            retry_condition_fn=task.retry_condition_fn,
            task_run_name=task.run_name,
        )
        return self._driver.session.register(function)


class Sent(NamedTuple):
    """How calls of a task are sent. Keeps the task alive, and so its `id`."""

    task: Task[..., Any]
    options: TaskOptions
    function: execute.FunctionHandle
    settings: execute.CallSettings
    code: str


def check_feasible(task: str, resources: Resources, capacity: Capacity) -> None:
    """Refuse hints that no node can ever meet.

    Raises:
        InfeasibleResourcesError: Names the task, the hint, what there is, and the remedy.
    """
    missing = shortfall(resources, capacity)
    if missing is not None:
        raise errors.InfeasibleResourcesError(
            f"Task {task!r} asks for {missing}. Lower the hint, for one call by "
            f"with_options(...). {capacity.remedy or 'Or add a node that has it.'}",
            task=task,
        )
