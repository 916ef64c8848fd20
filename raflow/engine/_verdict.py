"""Which failures make a flow run fail."""

from __future__ import annotations

from collections.abc import Sequence

from raflow.engine._runs import Node, Run
from raflow.model import TaskRunKey


def unhandled_failures(nodes: Sequence[Node]) -> tuple[TaskRunKey, ...]:
    """Return the task runs whose failure nobody handled, in the order of calls.

    A failure is handled if the flow's body looked at it (`result`, `await`, `state`) and went on,
    or if something depends on it and every dependant either completed (it took the failure by
    `allow_failure` or a trigger rule), was skipped, or is itself a handled failure. In short: a
    failure flows down the graph, and the run fails if it reaches an end that nobody looked at.
    """
    handled: set[TaskRunKey] = set()
    loose: list[TaskRunKey] = []
    # What depends on a call is registered after it: backwards, dependants are judged first.
    for node in reversed(nodes):
        for run in reversed(node.runs):
            if not run.failed:
                continue
            if run.seen or _passed_on(run, handled):
                handled.add(run.key)
            else:
                loose.append(run.key)
    return tuple(reversed(loose))


def _passed_on(run: Run, handled: set[TaskRunKey]) -> bool:
    dependants = [waiter.run for waiter in (*run.waiters, *run.node.waiters)]
    return bool(dependants) and all(
        not dependant.failed or dependant.key in handled for dependant in dependants
    )
