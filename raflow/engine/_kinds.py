"""Kinds of calls, and the queues that they wait in."""

from __future__ import annotations

from raflow.engine._ledger import Ledger
from raflow.engine._ready import Costs, Queue, TaskKind
from raflow.engine._runs import Mapped, Runs
from raflow.model import Resources, TaskOptions


class Kinds:
    """Finds the kind of a call, and makes it where there is none."""

    def __init__(self, ledger: Ledger, costs: Costs) -> None:
        """Begin without kinds; `costs` learns how many calls of each overlap."""
        self._ledger = ledger
        self._costs = costs
        self._by_id: dict[tuple[str, int], TaskKind] = {}
        """By name and identity of the options, which are slow to compare."""
        self._by_value: dict[tuple[str, TaskOptions], TaskKind] = {}
        self._queues: dict[tuple[Resources, bool], Queue] = {}
        self.queues: list[Queue] = []

    def of(self, name: str, options: TaskOptions) -> TaskKind:
        """Return the kind of the calls of a task with these options."""
        kind = self._by_id.get((name, id(options)))
        if kind is None or kind.options is not options:
            kind = self._by_value.get((name, options))
        return kind or self._make(name, options)

    def of_call(self, node: int) -> TaskKind:
        """Return the kind of a single call that is not final."""
        call = self._ledger.calls.call(node)
        return self.of(call.name, call.options)

    def of_run(self, runs: Runs, index: int) -> TaskKind:
        """Return the kind of a run that is not final."""
        if isinstance(runs, Mapped):
            return self.of(runs.call.name, runs.call.options)
        return self.of_call(index)

    def _make(self, name: str, options: TaskOptions) -> TaskKind:
        resources, alone = options.resources, not options.batch
        queue = self._queues.get((resources, alone))
        if queue is None:
            queue = self._queues[resources, alone] = Queue(resources=resources, alone=alone)
            self.queues.append(queue)
        if options.concurrency_per_worker > 1:
            self._costs.widths[name] = options.concurrency_per_worker
        kind = TaskKind(name=name, options=options, queue=queue)
        # The kind keeps its options alive, so that no others can come to the same address.
        self._by_id[name, id(options)] = self._by_value[name, options] = kind
        return kind
