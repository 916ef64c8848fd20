"""One task over a sequence: what every item gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pydantic
import pytest

from raflow import errors
from raflow.define import Columns, Dependency, Hole, allow_failure, task, unmapped
from raflow.model import EdgeKind, NodeKind
from tests.unit.define.fake_flow import FakeFlow, rows


@task
def add(a: Any, b: Any = 2) -> Any:
    return a + b


@task
def collect(first: Any, *rest: Any, **named: Any) -> Any:
    return first, rest, named


def items(body: FakeFlow) -> list[dict[str, Any]]:
    return rows(body.last)


def test_iterables_are_zipped_and_the_rest_is_shared(body: FakeFlow) -> None:
    future = add(1)
    add.map([1, 2], b=3)
    assert (body.last.kind, body.last.arguments) == (NodeKind.MAP, {"b": 3})
    assert items(body) == [{"a": 1}, {"a": 2}]
    add.map([1, 2], b=(x * x for x in range(2)))
    assert items(body) == [{"a": 1, "b": 0}, {"a": 2, "b": 1}]
    add.map([1, 2], b=unmapped([3, future]))
    assert body.last.arguments == {"b": [3, Hole(0)]}
    assert body.last.dependencies == (Dependency(source=0, parameter="b"),)
    assert items(body) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [1, 2],
        lambda: (1, 2),
        lambda: range(1, 3),
        lambda: iter([1, 2]),
        lambda: (n for n in (1, 2)),
        lambda: map(int, "12"),
        {1: 0, 2: 0}.keys,
        {0: 1, 1: 2}.values,
        lambda: np.array([1, 2]),
        lambda: pl.Series([1, 2]),
        lambda: {1, 2},
    ],
    ids=[
        *("list", "tuple", "range", "iterator", "generator", "map", "keys", "values"),
        *("array", "series", "set"),
    ],
)
def test_what_has_items(body: FakeFlow, make: Callable[[], Any]) -> None:
    add.map(make())
    assert [item["a"] for item in items(body)] == [1, 2]


def test_the_items_of_arrays_and_series_stay_what_they_are(body: FakeFlow) -> None:
    def kinds(values: Any) -> list[type]:
        add.map(values)
        return [type(item["a"]) for item in items(body)]

    assert kinds(np.array([1, 2])) == [np.int64, np.int64]
    assert kinds(np.array([1.5], dtype="float32")) == [np.float32]
    assert kinds(np.array(["x"])) == [np.str_]
    assert kinds(np.array([[1, 2], [3, 4]])) == [np.ndarray, np.ndarray]
    assert kinds(np.array([1, "x"], dtype=object)) == [int, str]
    assert kinds(pl.Series([1, 2])) == [int, int]


def test_futures_are_found_in_arrays_of_objects(body: FakeFlow) -> None:
    holder = np.empty(2, dtype=object)
    holder[1] = add(1)
    add.map(holder)
    assert items(body) == [{"a": None}, {"a": Hole(0)}]
    assert [d.target_item for d in body.last.dependencies] == [1]


class Pair(NamedTuple):
    x: int
    y: int


class Model(pydantic.BaseModel):
    x: int = 1


@pytest.mark.parametrize(
    "value",
    [
        *("text", b"bytes", bytearray(b"x"), {"a": 1}, 5, None),
        *(Pair(1, 2), Model(), np.float64(1.5), np.array(3), pl.DataFrame({"x": [1, 2, 3]})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_given_to_every_item_whole(body: FakeFlow, value: Any) -> None:
    add.map([1, 2], value)
    assert body.last.arguments["b"] is value
    assert items(body) == [{"a": 1}, {"a": 2}]


def test_something_must_have_items(body: FakeFlow) -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        add.map("text", b=unmapped([1]))
    assert "Task 'add': `.map()` needs at least one argument with items" in str(caught.value)
    assert "all items share: a, b" in str(caught.value)


def test_unequal_lengths_are_refused_by_name(body: FakeFlow) -> None:
    mapped = add.map([1, 2, 3])
    with pytest.raises(errors.MappingLengthMismatchError) as caught:
        add.map(mapped, b=range(2))
    assert "Task 'add'" in str(caught.value)
    assert "their lengths are a: 3, b: 2." in str(caught.value)
    assert "unmapped(...)" in str(caught.value)
    assert caught.value.lengths == {"a": 3, "b": 2}
    assert len(body.requests) == 1


def test_no_items_make_an_empty_map(body: FakeFlow) -> None:
    assert len(add.map([])) == 0
    assert items(body) == []


def test_each_item_waits_only_for_its_own_futures(body: FakeFlow) -> None:
    one, two = add(1), add(2)
    add.map([one, 5, {"deep": [two]}], allow_failure([two, one, one]))
    assert items(body) == [
        {"a": Hole(0), "b": Hole(2)},
        {"a": 5, "b": Hole(3)},
        {"a": {"deep": [Hole(1)]}, "b": Hole(4)},
    ]
    assert body.last.dependencies == (
        Dependency(source=0, parameter="a", target_item=0),
        Dependency(source=1, parameter="a", target_item=2),
        Dependency(source=1, parameter="b", target_item=0, allow_failure=True),
        Dependency(source=0, parameter="b", target_item=1, allow_failure=True),
        Dependency(source=0, parameter="b", target_item=2, allow_failure=True),
    )


def test_a_map_over_a_map_goes_item_by_item(body: FakeFlow) -> None:
    mapped = add.map(range(3))
    again = add.map(mapped, b=[7, 8, 9])
    assert again.known_length == 3
    assert body.last.item_arguments == {"a": Hole(0)}
    assert items(body) == [{"b": 7}, {"b": 8}, {"b": 9}]
    assert body.last.dependencies == (Dependency(source=0, kind=EdgeKind.ITEM, parameter="a"),)
    third = add.map(again)
    assert third.known_length == 3
    assert items(body) == [{}, {}, {}]


def test_a_map_over_a_future_of_a_list_has_no_length_yet(body: FakeFlow) -> None:
    listed = add(1)
    mapped = add.map(allow_failure(listed), b=1)
    assert (mapped.known_length, body.last.items) == (None, None)
    assert body.last.item_arguments == {"a": Hole(0)}
    assert body.last.dependencies == (
        Dependency(source=0, kind=EdgeKind.ITEM, parameter="a", allow_failure=True),
    )
    add.map(mapped)
    assert body.last.items is None
    add.map(listed, b=[1, 2])
    assert items(body) == [{"b": 1}, {"b": 2}]
    item = add.map([1, 2])[1]
    add.map(item)
    assert body.last.dependencies == (
        Dependency(source=4, kind=EdgeKind.ITEM, parameter="a", source_item=1),
    )


def test_unmapped_futures_are_needed_whole_by_every_item(body: FakeFlow) -> None:
    mapped = add.map([1, 2])
    add.map(mapped, b=unmapped(mapped))
    assert body.last.arguments == {"b": Hole(1)}
    assert body.last.dependencies == (
        Dependency(source=0, kind=EdgeKind.ITEM, parameter="a"),
        Dependency(source=0, kind=EdgeKind.DATA, parameter="b"),
    )
    add.map([1], b=allow_failure(unmapped(mapped)))
    add.map([1], b=unmapped(allow_failure(mapped)))
    for request in body.requests[-2:]:
        assert request.dependencies == (Dependency(source=0, parameter="b", allow_failure=True),)


def test_variable_arguments_are_zipped_too(body: FakeFlow) -> None:
    mapped = add.map([1, 2])
    collect.map([1, 2], [3, 4], "same", left=mapped, right=allow_failure([5, mapped[0]]))
    assert items(body) == [
        {"first": 1, "rest": (3, "same"), "named": {"left": Hole(0), "right": 5}},
        {"first": 2, "rest": (4, "same"), "named": {"left": Hole(1), "right": Hole(2)}},
    ]
    assert [(d.source_item, d.target_item) for d in body.last.dependencies] == [
        *((0, 0), (1, 1), (0, 1))
    ]
    collect.map([1, 2], "a", b=3)
    assert body.last.arguments == {"rest": ("a",), "named": {"b": 3}}
    with pytest.raises(errors.MappingLengthMismatchError, match=r"first: 2, rest\[0\]: 3"):
        collect.map([1, 2], [1, 2, 3])
    with pytest.raises(errors.DefinitionError, match=r"rest\[0\] cannot be mapped over a future"):
        collect.map([1, 2], add(1))


def test_conditions_hold_for_the_whole_map(body: FakeFlow) -> None:
    first = add(1)
    add.map([1], wait_for=[first], run_if=first)
    assert [d.kind for d in body.last.dependencies] == [EdgeKind.ORDER, EdgeKind.CONDITION]
    add.map([1], run_if=False)
    assert not body.last.runnable


@pytest.mark.parametrize("make", [list, np.array], ids=["list", "array"])
def test_what_holds_the_items_may_be_changed_after_the_call(
    body: FakeFlow, make: Callable[[list[int]], Any]
) -> None:
    numbers = make([1, 2])
    add.map(numbers)
    numbers[0] = 3
    assert items(body) == [{"a": 1}, {"a": 2}]


def test_items_are_cut_out_of_columns(body: FakeFlow) -> None:
    add.map(range(5), b=(5, 6, 7, 8, 9))
    columns = body.last.items
    assert isinstance(columns, Columns)
    assert (len(columns), columns.slice(1, 3)) == (5, {"a": range(1, 3), "b": (6, 7)})
    assert columns.slice(4, 5) == {"a": range(4, 5), "b": (9,)}


def test_a_million_items_cost_little(body: FakeFlow) -> None:
    numbers = list(range(1_000_000))
    start = time.thread_time()
    add.map(range(1_000_000), b=numbers)
    assert time.thread_time() - start < 0.6
    assert isinstance(body.last.items, Columns)
    assert body.last.items.slice(999_999, 1_000_000) == {
        "a": range(999_999, 1_000_000),
        "b": [999_999],
    }
    shared: Any = {"table": numbers, "text": "x"}
    start = time.thread_time()
    add(shared)
    assert time.thread_time() - start < 0.6
    assert body.last.arguments["a"] is shared
