from __future__ import annotations

import pytest

from raflow import errors
from raflow.model import State, StateName, TaskRunKey
from raflow.runtime._outcomes import Outcomes

DONE = State(name=StateName.COMPLETED, at=1.0)
PENDING = State(name=StateName.PENDING, at=0.0)


def test_a_run_can_be_watched_before_it_is_known() -> None:
    outcomes = Outcomes()
    watch = outcomes.watch_run(TaskRunKey(0))
    outcomes.entered(TaskRunKey(0), "a", PENDING)
    assert not watch.done()
    outcomes.entered(TaskRunKey(0), "a", DONE)
    assert watch.done()
    assert outcomes.watch_run(TaskRunKey(0)).done()
    assert outcomes.watch_whole(0).done()


def test_a_map_is_whole_once_every_item_is() -> None:
    outcomes = Outcomes()
    length, whole = outcomes.watch_length(0), outcomes.watch_whole(0)
    outcomes.expanded(0, 2)
    assert length.done()
    for item in (0, 1):
        outcomes.entered(TaskRunKey(0, item), f"a[{item}]", PENDING)
    outcomes.entered(TaskRunKey(0, 1), "a[1]", DONE)
    assert not whole.done()
    outcomes.entered(TaskRunKey(0, 0), "a[0]", DONE)
    assert whole.done()
    assert [run.label for run in outcomes.runs(0)] == ["a[0]", "a[1]"]


def test_an_empty_map_is_whole_at_once() -> None:
    outcomes = Outcomes()
    outcomes.expanded(0, 0)
    assert outcomes.watch_whole(0).done()
    assert outcomes.runs(0) == []


def test_a_map_that_could_not_be_expanded_has_one_run_that_tells_why() -> None:
    outcomes = Outcomes()
    whole = outcomes.watch_whole(0)
    outcomes.entered(TaskRunKey(0), "a", PENDING)
    assert not whole.done()
    outcomes.entered(TaskRunKey(0), "a", State(name=StateName.UPSTREAM_FAILED, at=1.0))
    outcomes.expanded(0, 0)
    assert whole.done()
    assert [run.state.name for run in outcomes.runs(0)] == [StateName.UPSTREAM_FAILED]


def test_the_end_reaches_everyone_who_waits() -> None:
    outcomes = Outcomes()
    watch = outcomes.watch_run(TaskRunKey(0))
    outcomes.end(errors.DefinitionError("over"))
    with pytest.raises(errors.DefinitionError, match="over"):
        watch.result()
    with pytest.raises(errors.DefinitionError, match="over"):
        outcomes.watch_length(5)
