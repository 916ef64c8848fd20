"""What a block tells of each of its task runs."""

from __future__ import annotations

from functools import cached_property
from itertools import chain

import orjson

from raflow.model._graph_parts import GraphNode
from raflow.model._plain import Plain, describe_plain
from raflow.model._records import Attempt, TaskRun, TaskRunBlock
from raflow.model._report import Chunk, Outcome, ResultInfo, TaskRunKey
from raflow.model._state import State, StateName


def run_label(node: GraphNode, map_index: int) -> str:
    """Return the name of a task run, unless `task_run_name` made another."""
    return node.label or node.key if map_index < 0 else f"{node.key}[{map_index}]"


def pending_run(flow_run_id: str, node: GraphNode, map_index: int) -> TaskRun:
    """Return a task run of which nothing is recorded but its node."""
    return TaskRun(
        flow_run_id=flow_run_id,
        key=TaskRunKey(node.id, map_index),
        task=node.name,
        label=run_label(node, map_index),
        state=State(name=StateName.PENDING, at=node.created_at),
        created_at=node.created_at,
    )


class BlockReader:
    """Gives the records that a block stands for, by position of the task run in the block."""

    def __init__(self, block: TaskRunBlock) -> None:
        """Read this block."""
        self.block = block

    @cached_property
    def keys(self) -> list[TaskRunKey]:
        """Its task runs, by position."""
        return list(chain.from_iterable(map(Chunk.runs, self.block.chunks)))

    @cached_property
    def _values(self) -> list[Plain]:
        values: list[Plain] = orjson.loads(self.block.plain)
        return values

    def position(self, key: TaskRunKey) -> int | None:
        """Return where a task run stands; None if it is not in the block."""
        before = 0
        for chunk in self.block.chunks:
            if chunk.node == key.node and chunk.start <= key.map_index < chunk.stop:
                return before + key.map_index - chunk.start
            before += chunk.size
        return None

    def task_run(self, position: int, key: TaskRunKey, node: GraphNode) -> TaskRun:
        """Return the task run at a position, whose key and node are these."""
        block = self.block
        ended_at = block.ended_at[position]
        state = self._end(position)
        return TaskRun(
            flow_run_id=block.flow_run_id,
            key=key,
            task=node.name,
            label=block.labels.get(position) or run_label(node, key.map_index),
            state=state,
            attempts=0 if block.origin else 1,
            created_at=node.created_at,
            started_at=None if block.origin else block.started_at[position],
            ended_at=ended_at,
            result=self.result(position),
        )

    def attempt(self, position: int, key: TaskRunKey) -> Attempt:
        """Return the one attempt of the task run at a position, whose key is this.

        Those of a block with an origin have none.
        """
        block = self.block
        assert not block.origin
        return Attempt(
            flow_run_id=block.flow_run_id,
            key=key,
            number=1,
            outcome=Outcome.COMPLETED,
            submitted_at=block.submitted_at,
            started_at=block.started_at[position],
            ended_at=block.ended_at[position],
            cpu_seconds=block.cpu_seconds[position],
            peak_memory=block.peak_memory,
            pid=block.place.pid,
            host=block.place.host,
            node_id=block.place.node_id,
        )

    def states(self, position: int) -> list[State]:
        """Return what the task run went through after it was made (PENDING), oldest first."""
        block = self.block
        if block.origin:
            return [self._end(position)]
        return [
            State(name=StateName.SUBMITTED, at=block.submitted_at),
            State(name=StateName.RUNNING, at=block.started_at[position]),
            self._end(position),
        ]

    def _end(self, position: int) -> State:
        name = StateName.CACHED if self.block.origin else StateName.COMPLETED
        return State(name=name, at=self.block.ended_at[position], message=self.block.origin)

    def result(self, position: int) -> ResultInfo | None:
        """Return what is known about the value of the task run at a position."""
        known = self.block.results.get(position)
        if known is not None or not self.block.plain:
            return known
        return describe_plain(self._values[position])
