"""Which failures make a flow run fail."""

from __future__ import annotations

from collections.abc import Iterator

from raflow.engine._ledger import Ledger
from raflow.engine._runs import Mapped, Runs
from raflow.model import Edge, TaskRunKey


def unhandled_failures(ledger: Ledger) -> tuple[TaskRunKey, ...]:
    """Return the task runs whose failure nobody handled, in the order of calls.

    A failure is handled if the flow's body looked at it (`result`, `await`, `state`) and went on,
    or if something depends on it and every dependant either completed (it took the failure by
    `allow_failure` or a trigger rule), was skipped, or is itself a handled failure. In short: a
    failure flows down the graph, and the run fails if it reaches an end that nobody looked at.
    Teardowns count for nothing in this, unless they are declared to.
    """
    return tuple(reversed(_Search(ledger).loose))


class _Search:
    """Goes through failures backwards: what depends on a call is registered after it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.loose: list[TaskRunKey] = []
        self._runs: set[TaskRunKey] = set()
        self._nodes: set[int] = set()
        failed: list[int] = list(ledger.calls.failures())
        failed += [mapped.node for mapped in ledger.maps.values() if mapped.failed]
        for node in sorted(set(failed) - ledger.teardowns, reverse=True):
            mapped = ledger.maps.get(node)
            if mapped is None or mapped.given_up:
                self._judge(ledger.calls, node)
            else:
                for item in reversed(list(mapped.failures())):
                    self._judge(mapped, item)

    def _judge(self, runs: Runs, index: int) -> None:
        if index in runs.seen or self._is_passed_on(runs, index):
            return
        key = runs.key(index)
        self.loose.append(key)
        self._runs.add(key)
        self._nodes.add(key.node)

    def _is_passed_on(self, runs: Runs, index: int) -> bool:
        handled = [self._handles(edge) for edge in self._edges(runs, index)]
        handled = [answer for answer in handled if answer is not None]
        if isinstance(runs, Mapped):
            for follower in runs.followers:
                if follower.node in self._ledger.teardowns:
                    continue
                handled.append(self._has_handled(follower, index))
        return bool(handled) and all(handled)

    def _edges(self, runs: Runs, index: int) -> Iterator[Edge]:
        yield from runs.waiters.get(index, ())
        mapped = runs if isinstance(runs, Mapped) else self._ledger.maps.get(index)
        if mapped is not None:
            yield from mapped.whole
            if mapped.given_up:
                for edges in mapped.waiters.values():
                    yield from edges

    def _handles(self, edge: Edge) -> bool | None:
        """Tell whether the target of an edge has handled a failure; None if there is no such."""
        if edge.target in self._ledger.teardowns:
            return None
        mapped = self._ledger.maps.get(edge.target)
        if mapped is None:
            return edge.target not in self._nodes
        if edge.target_item is not None:
            inside = edge.target_item < mapped.length
            return self._has_handled(mapped, edge.target_item) if inside else None
        if not (mapped.length or mapped.given_up):
            return None
        return edge.target not in self._nodes

    def _has_handled(self, mapped: Mapped, item: int) -> bool:
        if mapped.given_up:
            return mapped.node not in self._nodes
        return TaskRunKey(mapped.node, item) not in self._runs
