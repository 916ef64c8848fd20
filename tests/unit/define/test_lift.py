"""Futures are taken out of arguments and values are put in their places."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pydantic
import pytest
from hypothesis import strategies as st

from raflow.define import Hole, Lifter, TaskFuture, allow_failure, fill, task
from tests.unit.define.fake_flow import FakeFlow, body_of


@dataclass
class Open:
    value: Any
    other: Any = None
    unset: Any = field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Closed:
    value: Any

    def __post_init__(self) -> None:
        if isinstance(self.value, Hole):
            raise AssertionError("values are put in place without a new check")


class Pair(NamedTuple):
    left: Any
    right: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    value: Any
    number: int = 0


class Names(list[Any]):
    title = "x"


@task
def make(n: int) -> int:
    return n


def parts() -> st.SearchStrategy[Any]:
    """Values of every kind that can hold others, with futures (stood for by `~n`) inside."""
    leaves = st.one_of(
        st.integers(0, 9),
        st.text(max_size=3),
        st.none(),
        st.integers(0, 9).map(lambda n: ("future", n)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.lists(inner, max_size=3).map(Names),
            st.dictionaries(st.text(max_size=2), inner, max_size=3),
            st.dictionaries(st.text(max_size=2), inner, max_size=3).map(OrderedDict),
            st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
            inner.map(Closed),
            st.tuples(inner, inner).map(lambda pair: Open(*pair)),
            inner.map(lambda value: Model(value=value)),
            inner.map(lambda value: Model.model_validate({"value": 1, "extra": value})),
        ),
        max_leaves=12,
    )


def with_futures(shape: Any, futures: list[TaskFuture[Any]]) -> Any:
    """Replace each stand-in by a future; the rest stays the same object where it can."""
    return fill_in(shape, lambda n: futures[n])


def fill_in(shape: Any, of: Any) -> Any:  # noqa: C901 - one case for each kind of container
    match shape:
        case ("future", int(n)):
            return of(n)
        case Names():
            return Names(fill_in(inner, of) for inner in shape)
        case list():
            return [fill_in(inner, of) for inner in shape]
        case Pair(left, right):
            return Pair(fill_in(left, of), fill_in(right, of))
        case tuple():
            return tuple(fill_in(inner, of) for inner in shape)
        case OrderedDict():
            return OrderedDict((key, fill_in(inner, of)) for key, inner in shape.items())
        case dict():
            return {key: fill_in(inner, of) for key, inner in shape.items()}
        case Closed(value):
            return Closed(fill_in(value, of))
        case Open(value, other):
            return Open(fill_in(value, of), fill_in(other, of))
        case Model():
            extra = {k: fill_in(v, of) for k, v in (shape.model_extra or {}).items()}
            return Model(value=fill_in(shape.value, of), **extra)
        case _:
            return shape


def same(one: Any, other: Any) -> bool:
    """Compare with types."""
    if type(one) is not type(other):
        return False
    match one:
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case dict():
            return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
        case Closed():
            return same(one.value, other.value)
        case Open():
            return same([one.value, one.other], [other.value, other.other])
        case Model():
            return same([one.value, one.model_extra], [other.value, other.model_extra])
        case _:
            return bool(one == other)


@hypothesis.given(parts())
def test_lifting_and_filling_puts_each_value_where_its_future_was(shape: Any) -> None:
    with body_of(FakeFlow()) as context:
        futures = [make(n) for n in range(10)]
        argument = with_futures(shape, futures)
        lifter = Lifter(context, "Task 'x'")
        lifted = lifter.lift(argument, "p")
        values = {edge: f"value {d.source}" for edge, d in enumerate(lifter.dependencies)}
        filled = fill({"p": lifted}, values)["p"]
    assert same(filled, fill_in(shape, lambda n: f"value {n}"))
    assert all(d.parameter == "p" for d in lifter.dependencies)
    assert same(argument, with_futures(shape, futures))
    if not lifter.dependencies:
        assert lifted is argument


def lift(value: Any) -> Any:
    with body_of(FakeFlow()) as context:
        return Lifter(context, "Task 'x'").lift(value, "p")


class Kind(enum.Enum):
    A = 1


@pytest.mark.parametrize(
    "constant",
    [
        *([1, [2, {"a": (3,)}]], {"x": [1.5]}, {1, 2}, frozenset("ab"), Pair(1, [2]), Closed([1])),
        *(Open({"a": 1}), Model(value=[1]), Names([1]), np.arange(3), Kind.A, object(), Open),
    ],
    ids=[
        *("list", "dict", "set", "frozenset", "namedtuple", "frozen dataclass"),
        *("dataclass", "model", "list subclass", "array", "enum", "object", "class"),
    ],
)
def test_what_holds_no_future_is_not_copied(constant: Any) -> None:
    assert lift(constant) is constant
    assert fill({"p": constant}, {0: "x"})["p"] is constant


def test_containers_keep_their_kind_and_what_else_they_carry() -> None:
    with body_of(FakeFlow()) as context:
        future = make(1)
        counted: Any = defaultdict(int, a=future)
        lifted = Lifter(context, "x").lift(counted, "p")
        assert lifted == {"a": Hole(0)}
        assert lifted.default_factory is int
        assert Lifter(context, "x").lift({future, 1}, "p") == {Hole(0), 1}
        assert Lifter(context, "x").lift(frozenset({future}), "p") == frozenset({Hole(0)})
        model = Model(value=future, number=3)
        lifted = Lifter(context, "x").lift(model, "p")
        assert (lifted.value, lifted.number, lifted.model_fields_set) == (
            *(Hole(0), 3),
            {"value", "number"},
        )
        assert model.value is future
        names = Names([future])
        names.title = "kept"
        assert Lifter(context, "x").lift(names, "p").title == "kept"


def test_what_stands_next_to_a_future_is_shared() -> None:
    beside = {
        "list": [1, [2]],
        "dict": {"a": {"b": 1}},
        "tuple": (1, (2,)),
        "set": {1, (1,)},
        "model": Model(value=[1]),
        "dataclass": Open([1]),
    }
    with body_of(FakeFlow()) as context:
        lifted = Lifter(context, "x").lift({"future": make(1), **beside}, "p")
    filled = fill({"p": lifted}, {0: 5})["p"]
    assert filled["future"] == 5
    assert all(lifted[name] is value for name, value in beside.items())
    assert all(filled[name] is value for name, value in beside.items())


def test_a_container_that_holds_itself_is_left_alone() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert lift(circle) is circle
    with body_of(FakeFlow()) as context:
        both = Lifter(context, "x").lift([circle, make(1)], "p")
    assert both[0] is circle
    assert fill({"p": both}, {0: 5})["p"] == [circle, 5]


def test_allow_failure_holds_for_all_inside() -> None:
    with body_of(FakeFlow()) as context:
        one, two = make(1), make(2)
        lifter = Lifter(context, "x")
        lifted = lifter.lift({"a": allow_failure([one, Open(two)]), "b": one}, "p")
    assert (lifted["a"][0], lifted["a"][1].value, lifted["b"]) == (Hole(0), Hole(1), Hole(2))
    assert [d.allow_failure for d in lifter.dependencies] == [True, True, False]


def test_filling_without_values_changes_nothing() -> None:
    arguments = {"p": [Hole(0)]}
    assert fill(arguments, {}) is arguments
