from __future__ import annotations

import pickle

import cloudpickle
import pytest

from raflow.execute._failure import Pickling, describe

PICKLING = Pickling(cloudpickle.dumps, pickle.loads)


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as same:
        return same


class Changed(Exception):
    """Says something else after a journey."""

    def __init__(self, text: str = "on arrival") -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Changed], tuple[()]]:
        return Changed, ()


class Explodes(Exception):
    def __reduce__(self) -> str:
        raise RuntimeError("no")


def test_an_ordinary_exception() -> None:
    info = describe(caught(ValueError("why", 3)), PICKLING)
    assert (info.type, info.message) == ("builtins.ValueError", "('why', 3)")
    assert "in caught" in info.traceback
    assert info.pickled is not None
    assert pickle.loads(info.pickled).args == ("why", 3)


class Leaves(Exception):
    """Does all that it can to end whoever looks at it."""

    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__

    def __reduce__(self) -> str:
        raise SystemExit(5)


@pytest.mark.parametrize(
    "error", [Changed("at home"), Explodes("x"), Leaves(), Exception("x" * 2_000_000)]
)
def test_what_does_not_arrive_the_same_does_not_travel(error: Exception) -> None:
    assert describe(error, PICKLING).pickled is None


def test_endless_recursion_has_a_readable_traceback() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    with pytest.raises(RecursionError) as raised:
        deeper(0)
    text = describe(raised.value, PICKLING).traceback
    assert "previous line repeated" in text.lower()
    assert len(text) < 10_000


def test_a_long_message_is_shortened() -> None:
    info = describe(caught(ValueError("x" * 200_000)), PICKLING)
    assert "characters left out" in info.traceback
    assert len(info.traceback) < 70_000
    assert "characters left out" in info.message
    assert len(info.message) < 20_000


def test_an_exception_that_cannot_even_be_shown() -> None:
    info = describe(caught(Leaves()), PICKLING)
    assert info.message == "<Leaves, whose text cannot be made: SystemExit>"
    assert info.traceback


def test_a_long_chain_of_causes_has_a_traceback() -> None:
    error = ValueError("first")
    for number in range(3_000):
        later = ValueError(f"number {number}")
        later.__cause__, error = error, later
    text = describe(caught(error), PICKLING).traceback
    assert text.startswith("ValueError: first\n")
    assert text.endswith("ValueError: number 2999\n")


def test_a_cycle_of_causes_has_a_traceback() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: two" in describe(caught(one), PICKLING).traceback


def test_groups_keep_their_members() -> None:
    group = BaseExceptionGroup("several", [caught(ValueError("one")), caught(KeyError("two"))])
    text = describe(caught(group), PICKLING).traceback
    assert "ValueError: one" in text
    assert "KeyError: 'two'" in text
