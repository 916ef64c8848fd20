"""Requests of a body have the same names each time it is run."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

from raflow import flow, run_deployment, task
from raflow.define import Occasions, TaskRunContext
from raflow.model import TaskRunKey


def test_alike_ones_are_numbered_and_others_between_them_do_not_matter() -> None:
    one, other = Occasions(), Occasions()
    assert [one.next(what) for what in "aab"] == [
        first := other.next("a"),
        other.next("a"),
        third := other.next("b"),
    ]
    again = Occasions()
    assert [again.next(what) for what in "ba"] == [third, first]
    assert len({one.next(what) for what in "abc\ud800"}) == 4


def test_no_two_threads_get_the_same() -> None:
    shared = Occasions()
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda _: shared.next("a"), range(2000)))
    assert len({*names}) == 2000


def test_those_of_a_task_are_the_same_in_each_attempt_and_differ_from_those_of_others() -> None:
    def asked(node: int, item: int, attempt: int) -> str:
        run = TaskRunKey(node, item)
        context = TaskRunContext(
            flow_run_id="r1",
            flow="etl",
            flow_run_name="n",
            task="t",
            label="t-0",
            run=run,
            attempt=attempt,
        )
        return pickle.loads(pickle.dumps(context)).occasion("a")  # type: ignore[no-any-return]

    assert asked(1, -1, 1) == asked(1, -1, 2)
    assert len({asked(1, -1, 1), asked(1, 0, 1), asked(2, -1, 1)}) == 3


def test_drawing_a_graph_orders_nothing() -> None:
    @task
    def load() -> int:
        return 1

    @flow
    def parent() -> None:
        load()
        run_deployment("nightly")

    graph = parent.compile()
    assert len(graph.nodes) == 1
    assert graph.stopped_at is not None
    assert "orders a run of a deployment" in graph.stopped_at.message
