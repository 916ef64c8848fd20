"""Values that were kept are inputs like others; what cannot be read is a lost input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from raflow import errors
from raflow.execute import EachOf, EachPart, Kept, Known, ListOf, Part
from raflow.model import Outcome, ResultPolicy
from tests.ray import user_tasks as user
from tests.ray.harness import Run

KEEP = ResultPolicy(persist=True)


def kept(run: Run, fn: Any, arguments: dict[str, Any]) -> Kept:
    """Run a task and return its value as the record would."""
    report = run.finish(run.submit(run.call(fn, arguments, policy=KEEP))).report
    [info] = report.results.values()
    return Kept(info)


def test_a_kept_value_is_read_where_it_is_used(run: Run) -> None:
    small = kept(run, user.numbers, {"length": 10})
    large = kept(run, user.big_array, {"megabytes": 1})
    assert small.info.inline is not None
    assert large.info.url
    sources = {
        "single": small,
        "part": Part(small, 3),
        "list": ListOf((small, Known(None), small)),
    }
    values = {k: run.value(user.echo, inputs={"value": s}) for k, s in sources.items()}
    ten = list(range(10))
    assert {k: run.session.fetch(v) for k, v in values.items()} == {
        "single": ten,
        "part": 3,
        "list": [ten, None, ten],
    }
    assert run.session.fetch(run.value(user.total, inputs={"array": large})) == 1 << 17


def test_kept_values_are_items_of_a_map(run: Run) -> None:
    three = [kept(run, user.numbers, {"length": n}) for n in (1, 2, 3)]
    each = EachOf((*three, Known("known")))
    batch = run.submit(
        run.call(user.echo, inputs={"value": each}, length=4),
        run.call(user.echo, inputs={"value": EachPart(three[2], 1)}, length=2),
    )
    got: list[Any] = [run.fetch(batch, position) for position in range(6)]
    assert got == [[0], [0, 1], [0, 1, 2], "known", 1, 2]


def test_the_driver_fetches_kept_values(run: Run) -> None:
    ten = kept(run, user.numbers, {"length": 10})
    assert run.session.fetch(ten) == list(range(10))
    assert run.session.fetch(Part(ten, 4)) == 4
    assert run.session.fetch(ListOf((ten, Known(1)))) == [list(range(10)), 1]


def damaged(run: Run, how: str) -> Kept:
    large = kept(run, user.big_array, {"megabytes": 1})
    path = Path(large.info.url.removeprefix("file://"))
    match how:
        case "missing":
            path.unlink()
        case "changed":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case _:
            return Kept(dataclasses.replace(large.info, serializer="", url="", digest=""))
    return large


@pytest.mark.parametrize("how", ["missing", "changed", "never kept"])
def test_a_kept_value_that_cannot_be_read_is_a_lost_input(run: Run, how: str) -> None:
    lost = damaged(run, how)
    call = run.call(user.add, inputs={"x": Known(1), "y": lost})
    report = run.finish(run.submit(call, run.call(user.add, {"x": 1}))).report
    [told] = report.told.values()
    assert (told.outcome, told.lost_inputs, told.error) == (Outcome.LOST, (1,), None)
    assert "a value that it needs is gone" in told.message
    with pytest.raises(errors.BackendError, match="cannot be read"):
        run.session.fetch(lost)


def test_only_the_items_that_need_a_lost_value_are_lost(run: Run) -> None:
    lost, good = damaged(run, "missing"), kept(run, user.numbers, {"length": 2})
    each = run.call(user.echo, inputs={"value": EachOf((good, lost, good))}, length=3)
    shared = run.call(user.add, {"y": 1}, inputs={"x": lost}, length=2)
    listed = run.call(user.echo, inputs={"value": ListOf((good, lost))})
    batch = run.submit(each, shared, listed, run.call(user.add, {"x": 1}))
    told = run.finish(batch).report.told
    assert sorted(told) == [1, 3, 4, 5]
    assert {(r.outcome.value, r.lost_inputs) for r in told.values()} == {("lost", (0,))}
    assert run.fetch(batch, 2) == [0, 1]
    assert run.fetch(batch, 6) == 2
