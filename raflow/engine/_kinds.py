"""Kinds of calls, and the queues that they wait in."""

from __future__ import annotations

from dataclasses import replace

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
        self._queues: dict[tuple[Resources, bool, bool, bool, bool], Queue] = {}
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

    def grown(self, kind: TaskKind, memory: int) -> TaskKind:
        """Return the kind of calls that ask for so much memory, and are alike otherwise."""
        resources = replace(kind.options.resources, memory=memory)
        return self.of(kind.name, replace(kind.options, resources=resources))

    def _make(self, name: str, options: TaskOptions) -> TaskKind:
        if options.concurrency_per_worker > 1:
            self._costs.widths[name] = options.concurrency_per_worker
        kind = TaskKind(
            name=name,
            options=options,
            queue=self._queue(options),
            gated=bool(options.limits) or options.cache is not None,
        )
        # The kind keeps its options alive, so that no others can come to the same address.
        self._by_id[name, id(options)] = self._by_value[name, options] = kind
        return kind

    def _queue(self, options: TaskOptions) -> Queue:
        limited, once, teardown = bool(options.limits), options.at_most_once, options.teardown
        alone = not options.batch or limited or once or teardown
        key = (options.resources, alone, limited, once, teardown)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(
                resources=options.resources,
                alone=alone,
                free=not options.resources.amounts(),
                limited=limited,
                once=once,
                teardown=teardown,
            )
            self.queues.append(queue)
        return queue
