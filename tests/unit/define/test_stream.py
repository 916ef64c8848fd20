"""A map over an iterator: items are taken from it when there is room for them."""

from __future__ import annotations

import contextvars
import gc
import itertools
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raflow import errors
from raflow.define import (
    Columns,
    Dependency,
    Hole,
    Stream,
    active_flow,
    allow_failure,
    task,
    unmapped,
)
from raflow.model import EdgeKind
from tests.unit.define.fake_flow import FakeFlow, body_of, rows


@task
def add(a: Any, b: Any = 2) -> Any:
    return a + b


@task
def collect(first: Any, *rest: Any, **named: Any) -> Any:
    return first, rest, named


def stream(body: FakeFlow) -> Stream:
    assert body.last.items is not None
    assert not isinstance(body.last.items, Columns)
    return body.last.items


def take(body: FakeFlow, count: int) -> dict[str, Any]:
    columns = stream(body).take(count)
    return dict(columns.slice(0, len(columns)))


def test_an_iterator_is_read_as_far_as_it_is_asked_to(body: FakeFlow) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(5):
            read.append(n)
            yield n

    mapped = add.map(numbers(), b=3)
    assert (mapped.known_length, read) == (None, [0])
    assert body.last.arguments == {"b": 3}
    assert take(body, 2) == {"a": [0, 1]}
    assert read == [0, 1]
    assert take(body, 2) == {"a": [2, 3]}
    assert take(body, 2) == {"a": [4]}
    assert len(stream(body).take(2)) == 0
    body.lengths[0] = 5
    assert len(mapped) == mapped.known_length == 5


def test_an_iterator_without_items_is_an_empty_map(body: FakeFlow) -> None:
    add.map(iter([]))
    assert len(stream(body).take(10)) == 0


def test_what_has_no_length_is_an_iterator(body: FakeFlow) -> None:
    class Numbers:
        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    add.map(Numbers(), b=itertools.count(7))
    assert take(body, 2) == {"a": [1, 2], "b": [7, 8]}


def test_arguments_with_a_length_are_zipped_with_it(body: FakeFlow) -> None:
    add.map((n * n for n in range(3)), b=[7, 8, 9])
    assert take(body, 2) == {"a": [0, 1], "b": [7, 8]}
    assert take(body, 2) == {"a": [4], "b": [9]}
    assert len(stream(body).take(2)) == 0


@pytest.mark.parametrize(
    ("count", "taken", "lengths", "told"),
    [
        (3, 2, {"a": 2, "b": 3}, "a: 2, b: 3"),
        (3, 0, {"a": 0, "b": 3}, "a: 0, b: 3"),
        (3, 9, {"a": 5, "b": 4}, "a: at least 5, b: 4"),
        (3, 1, {"a": 1, "b": 0}, "a: at least 1, b: 0"),
        (3, 4, {"a": 4, "b": 3}, "a: at least 4, b: 3"),
        (3, 3, {"a": 3, "b": 4}, "a: 3, b: 4"),
    ],
    ids=[
        *("it ends early", "it has none", "it goes on", "the other has none"),
        *("it goes on between two pieces", "it ends between two pieces"),
    ],
)
def test_unequal_lengths_are_refused_when_they_come_out(
    body: FakeFlow, count: int, taken: int, lengths: dict[str, int], told: str
) -> None:
    add.map(iter(range(taken)), b=list(range(lengths["b"])))
    found: list[int] = []
    with pytest.raises(errors.MappingLengthMismatchError) as caught:
        found.extend(iter(lambda: len(stream(body).take(count)), 0))
    assert sum(found) == min(taken, lengths["b"])
    assert "Task 'add': the arguments of one map must be equally long" in str(caught.value)
    assert f"their lengths are {told}. Wrap" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).lengths == lengths


def test_two_iterators_are_zipped_strictly(body: FakeFlow) -> None:
    add.map(iter("ab"), b=iter("abc"))
    assert take(body, 10) == {"a": ["a", "b"], "b": ["a", "b"]}
    with pytest.raises(errors.MappingLengthMismatchError, match="a: 2, b: at least 3"):
        stream(body).take(10)
    add.map([1], b=(n for n in range(0)))
    with pytest.raises(errors.MappingLengthMismatchError, match="a: 1, b: 0"):
        stream(body).take(10)
    add.map(iter("ab"), b=iter("ab"))
    assert rows(body.last) == [{"a": "a", "b": "a"}, {"a": "b", "b": "b"}]


def test_arguments_with_a_length_are_compared_at_the_call(body: FakeFlow) -> None:
    with pytest.raises(errors.MappingLengthMismatchError, match=r"rest\[0\]: 2, rest\[1\]: 3"):
        collect.map(iter("ab"), [1, 2], [1, 2, 3])


@pytest.mark.parametrize("error", [OSError("the disk is gone"), SystemExit(3)])
def test_what_the_iterator_raises_comes_after_the_items(
    body: FakeFlow, error: BaseException
) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    add.map(numbers())
    assert take(body, 5) == {"a": [1, 2]}
    with pytest.raises(type(error)) as caught:
        stream(body).take(5)
    assert caught.value is error
    assert len(stream(body).take(5)) == 0


def test_what_comes_before_the_first_item_is_raised_at_the_call(body: FakeFlow) -> None:
    def numbers() -> Iterator[int]:
        raise OSError("the disk is gone")
        yield 1

    with pytest.raises(OSError, match="the disk is gone"):
        add.map(numbers())
    assert body.requests == []


def test_items_that_have_come_do_not_wait_for_those_to_come(body: FakeFlow) -> None:
    more = threading.Event()

    def numbers() -> Iterator[int]:
        yield from (1, 2)
        assert more.wait(100)
        yield from (3, 4, 5)

    add.map(numbers())
    began = time.monotonic()
    assert take(body, 10) == {"a": [1, 2]}
    assert time.monotonic() - began > 0.04
    threading.Timer(0.1, more.set).start()
    assert take(body, 2) == {"a": [3, 4]}
    assert take(body, 10) == {"a": [5]}
    assert len(stream(body).take(10)) == 0


def test_slow_items_come_in_small_pieces(body: FakeFlow) -> None:
    def numbers() -> Iterator[int]:
        for n in range(8):
            time.sleep(0.02)
            yield n

    add.map(numbers())
    pieces = [*iter(lambda: take(body, 100)["a"], [])]
    assert [n for piece in pieces for n in piece] == [*range(8)]
    assert len(pieces) > 1


def test_an_iterator_is_closed_only_when_it_is_let_go(body: FakeFlow) -> None:
    seen: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            for n in range(100):
                seen.append(str(n))
                yield n
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        seen.append("end")

    add.map(numbers())
    assert take(body, 2) == {"a": [0, 1]}
    assert seen == ["0", "1"]
    body.requests.clear()
    gc.collect()
    assert seen == ["0", "1", "GeneratorExit"]


def test_any_values_may_come(body: FakeFlow) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise TypeError("do not compare")

        __hash__ = None  # type: ignore[assignment]  # on purpose

    values = [Odd(), None, (), Odd()]
    add.map(iter(values), b=iter(values))
    found = take(body, 10)
    assert [*map(id, found["a"])] == [*map(id, found["b"])] == [*map(id, values)]
    assert len(stream(body).take(10)) == 0


@pytest.mark.parametrize(
    "inside",
    [lambda f: f, lambda f: [1, {"x": f}], allow_failure, lambda f: unmapped([f])],
    ids=["itself", "deep", "allow_failure", "unmapped"],
)
def test_futures_among_the_items_of_an_iterator_are_refused(
    body: FakeFlow, inside: Callable[[Any], Any]
) -> None:
    future = add(1)
    add.map(inside(value) if value is future else value for value in (1, future))
    assert take(body, 5) == {"a": [1]}
    with pytest.raises(errors.DefinitionError) as caught:
        stream(body).take(5)
    assert str(caught.value).startswith("The future of task 'add' (called at test_stream.py:")
    assert "an item of an iterator that Task 'add' is mapped over" in str(caught.value)
    assert "Map over a list: `.map(list(items))`" in str(caught.value)


@pytest.mark.parametrize(
    "inside",
    [lambda f: f, lambda f: {"x": [f]}, allow_failure],
    ids=["itself", "deep", "allow_failure"],
)
def test_an_iterator_that_begins_with_a_future_is_read_at_the_call(
    body: FakeFlow, inside: Callable[[Any], Any]
) -> None:
    mapped = add.map((inside(add(n)) for n in range(3)), b=5)
    assert isinstance(body.last.items, Columns)
    assert mapped.known_length == 3
    assert [(d.source, d.parameter, d.target_item) for d in body.last.dependencies] == [
        *((0, "a", 0), (1, "a", 1), (2, "a", 2))
    ]
    assert [row["a"] for row in rows(body.last)] == [
        inside(Hole(n)) if inside is not allow_failure else Hole(n) for n in range(3)
    ]


def test_a_generator_of_futures_makes_the_others_be_read_too(body: FakeFlow) -> None:
    add.map(iter("abc"), b=(add(n) for n in range(3)))
    assert rows(body.last) == [{"a": letter, "b": Hole(n)} for n, letter in enumerate("abc")]
    with pytest.raises(errors.MappingLengthMismatchError, match="a: 2, b: 3"):
        add.map(iter("ab"), b=(add(n) for n in range(3)))


def test_a_future_of_another_flow_is_refused_at_the_call(body: FakeFlow) -> None:
    with body_of(FakeFlow()):
        future = add(1)
    with pytest.raises(errors.DefinitionError, match="belongs to another flow run"):
        add.map(future for _ in range(2))
    assert body.requests == []


def test_wrappers_around_values_are_taken_off(body: FakeFlow) -> None:
    add.map(iter([allow_failure(1), unmapped(2), [allow_failure(3)]]))
    assert take(body, 5) == {"a": [1, 2, [3]]}


def test_the_others_may_wait_for_futures(body: FakeFlow) -> None:
    one, many = add(1), add.map([1, 2])
    add.map(iter([1, 2]), b=unmapped(many), wait_for=one, run_if=one)
    assert body.last.arguments == {"b": Hole(0)}
    assert [d.kind for d in body.last.dependencies] == [
        *(EdgeKind.DATA, EdgeKind.ORDER, EdgeKind.CONDITION)
    ]
    assert take(body, 5) == {"a": [1, 2]}


def test_items_that_wait_for_items_are_read_at_the_call(body: FakeFlow) -> None:
    one, many = add(1), add.map([1, 2])
    again = add.map((n for n in (5, one)), b=many)
    assert rows(body.last) == [{"a": 5}, {"a": Hole(1)}]
    assert body.last.dependencies == (
        Dependency(source=1, kind=EdgeKind.ITEM, parameter="b"),
        Dependency(source=0, parameter="a", target_item=1),
    )
    assert again.known_length == 2
    add.map(allow_failure(iter([3, one])), b=[one, 4])
    assert isinstance(body.last.items, Columns)
    assert [(d.target_item, d.allow_failure) for d in body.last.dependencies] == [
        *((0, False), (1, True))
    ]
    with pytest.raises(errors.MappingLengthMismatchError, match="a: 3, b: 2"):
        add.map(iter("abc"), b=many)


def test_variable_arguments_may_be_iterators(body: FakeFlow) -> None:
    collect.map([1, 2, 3], iter("abc"), "same", left=(n * n for n in range(3)), right=0)
    assert take(body, 2) == {
        "first": [1, 2],
        "rest": [("a", "same"), ("b", "same")],
        "named": [{"left": 0, "right": 0}, {"left": 1, "right": 0}],
    }
    assert take(body, 2) == {
        "first": [3],
        "rest": [("c", "same")],
        "named": [{"left": 4, "right": 0}],
    }
    assert len(stream(body).take(2)) == 0
    collect.map(iter("ab"), left=[1, 2, 3])
    assert len(stream(body).take(5)) == 2
    with pytest.raises(errors.MappingLengthMismatchError, match=r"first: 2, named\['left'\]: 3"):
        stream(body).take(5)


def test_an_iterator_runs_in_the_context_of_the_call(body: FakeFlow) -> None:
    name = contextvars.ContextVar("name", default="nobody")
    seen: list[Any] = []

    def numbers() -> Iterator[int]:
        for _ in range(2):
            seen.append((name.get(), active_flow.get(), threading.current_thread().name))
            yield 1

    token = name.set("me")
    add.map(numbers())
    name.reset(token)
    with ThreadPoolExecutor(1) as elsewhere:
        assert len(elsewhere.submit(stream(body).take, 5).result()) == 2
    here = threading.current_thread().name
    assert seen == [("me", body, here), ("me", body, "raflow-iterator")]
    assert name.get() == "nobody"


def test_an_iterator_is_let_go_when_it_has_ended(body: FakeFlow) -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            yield from range(3)

    source = Source()
    gone = weakref.ref(source)
    add.map(source)
    del source
    assert take(body, 2) == {"a": [0, 1]}
    assert gone() is not None
    assert take(body, 2) == {"a": [2]}
    gc.collect()
    assert gone() is None
