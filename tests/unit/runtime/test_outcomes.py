from __future__ import annotations

import pytest

from raflow import errors
from raflow.execute import ValueRef, ValueSlice
from raflow.model import Chunk, State, StateName, TaskRunKey
from raflow.runtime.calls._outcomes import Outcomes, RunOutcome

DONE = State(name=StateName.SKIPPED, at=1.0)
PENDING = State(name=StateName.PENDING, at=0.0)
FAILED = State(name=StateName.FAILED, at=1.0)


def of_one(*, mapped: bool) -> Outcomes:
    outcomes = Outcomes()
    outcomes.called([mapped])
    return outcomes


def test_a_run_can_be_watched_before_it_is_known() -> None:
    outcomes = Outcomes()
    watch = outcomes.watch_run(TaskRunKey(0))
    outcomes.called([False])
    outcomes.entered(TaskRunKey(0), "a", PENDING)
    assert not watch.done()
    outcomes.entered(TaskRunKey(0), "a", DONE)
    assert watch.done()
    assert outcomes.watch_run(TaskRunKey(0)).done()
    assert outcomes.watch_whole(0).done()


def test_what_simply_completes_has_a_value_and_no_more() -> None:
    outcomes = of_one(mapped=False)
    watch = outcomes.watch_run(TaskRunKey(0))
    outcomes.completed([(Chunk(0), 3)], "values")
    assert watch.done()
    assert outcomes.find(TaskRunKey(0)) == ValueRef("values", 3)
    assert outcomes.is_whole(0)


def test_an_attempt_that_is_noted_does_not_end_the_run() -> None:
    outcomes = of_one(mapped=False)
    watch = outcomes.watch_run(TaskRunKey(0))
    assert outcomes.tried(TaskRunKey(0), "a", 1.0).state.name is StateName.PENDING
    assert not watch.done()
    assert not outcomes.is_whole(0)


def test_a_map_is_whole_once_every_item_is() -> None:
    outcomes = of_one(mapped=True)
    length, whole = outcomes.watch_length(0), outcomes.watch_whole(0)
    outcomes.expanded(0, 4)
    assert length.done()
    outcomes.completed([(Chunk(0, 2, 4), 0)], "late")
    outcomes.entered(TaskRunKey(0, 1), "a[1]", FAILED)
    assert not whole.done()
    assert outcomes.prefix(0) == 0
    outcomes.completed([(Chunk(0, 0, 1), 7)], "early")
    assert whole.done()
    assert outcomes.prefix(0) == 4
    first, second, rest = outcomes.items(0)
    assert (first, rest) == (ValueRef("early", 7), ValueSlice("late", 0, 2))
    assert isinstance(second, RunOutcome)
    assert second.label == "a[1]"
    assert outcomes.failures(0) == [TaskRunKey(0, 1)]
    assert list(outcomes.items(0, 3, 4)) == [ValueRef("late", 1)]


def test_items_can_be_watched_one_by_one() -> None:
    outcomes = of_one(mapped=True)
    outcomes.expanded(0, 1000)
    watched = {item: outcomes.watch_run(TaskRunKey(0, item)) for item in (3, 500, 999)}
    outcomes.completed([(Chunk(0, 0, 501), 0)], "values")
    assert {item: watch.done() for item, watch in watched.items()} == {
        3: True,
        500: True,
        999: False,
    }
    assert outcomes.watch_run(TaskRunKey(0, 4)).done()


def test_an_item_that_is_tried_again_and_completes_counts_once() -> None:
    outcomes = of_one(mapped=True)
    outcomes.expanded(0, 2)
    outcomes.tried(TaskRunKey(0, 0), "a[0]", 1.0)
    outcomes.entered(TaskRunKey(0, 0), "a[0]", PENDING)
    outcomes.completed([(Chunk(0, 0, 1), 0)], "values")
    assert not outcomes.is_whole(0)
    assert outcomes.find(TaskRunKey(0, 0)) == ValueRef("values", 0)
    outcomes.completed([(Chunk(0, 1, 2), 1)], "values")
    assert outcomes.is_whole(0)


def test_a_released_object_is_let_go_with_its_last_value() -> None:
    outcomes = of_one(mapped=True)
    outcomes.expanded(0, 10)
    outcomes.completed([(Chunk(0, 0, 10), 0)], "values")
    outcomes.release([Chunk(0, 0, 4)])
    outcomes.release([Chunk(0, 6, 10)])
    assert list(outcomes.items(0)) == [ValueSlice("values", 4, 6)]
    outcomes.release([Chunk(0, 4, 6)])
    assert list(outcomes.items(0)) == []
    assert outcomes.is_whole(0)


def test_an_empty_map_is_whole_at_once() -> None:
    outcomes = of_one(mapped=True)
    outcomes.expanded(0, 0)
    assert outcomes.watch_whole(0).done()
    assert list(outcomes.items(0)) == []


def test_a_map_that_could_not_be_expanded_has_one_run_that_tells_why() -> None:
    outcomes = of_one(mapped=True)
    whole = outcomes.watch_whole(0)
    outcomes.entered(TaskRunKey(0), "a", PENDING)
    assert not whole.done()
    outcomes.entered(TaskRunKey(0), "a", State(name=StateName.UPSTREAM_FAILED, at=1.0))
    outcomes.expanded(0, 0)
    assert whole.done()
    (told,) = outcomes.items(0)
    assert isinstance(told, RunOutcome)
    assert told.state.name is StateName.UPSTREAM_FAILED


def test_the_end_reaches_everyone_who_waits() -> None:
    outcomes = Outcomes()
    watch = outcomes.watch_run(TaskRunKey(0))
    outcomes.end(errors.DefinitionError("over"))
    with pytest.raises(errors.DefinitionError, match="over"):
        watch.result()
    with pytest.raises(errors.DefinitionError, match="over"):
        outcomes.watch_length(5)
