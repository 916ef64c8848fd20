from __future__ import annotations

from raflow.execute import Known, ListOf, Part, ValueRef
from raflow.execute._inputs import resolve

VALUES = {0: "zero", 1: ["a", "b"]}


def value_at(value: ValueRef) -> object:
    return VALUES[value.position]


def test_each_kind_of_source() -> None:
    zero, listed = ValueRef("h", 0), ValueRef("h", 1)
    assert resolve(zero, value_at) == "zero"
    assert resolve(Part(listed, 1), value_at) == "b"
    assert resolve(Known(3), value_at) == 3
    assert resolve(ListOf((zero, Known(None), listed)), value_at) == ["zero", None, ["a", "b"]]


def test_what_is_known_may_have_a_form_of_its_own() -> None:
    assert resolve(ListOf((Known(3),)), value_at, lambda known: f"<{known.value}>") == ["<3>"]
