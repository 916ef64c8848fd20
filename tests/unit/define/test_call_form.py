"""Arguments by name become the same call again."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from raflow.define import CallForm


def plain(a: Any, b: Any = 2) -> Any:
    return (a, b)


def by_position(a: Any, b: Any = 2, /, c: Any = 3) -> Any:
    return (a, b, c)


def with_rest(a: Any = 1, b: Any = 2, *rest: Any, c: Any = 3) -> Any:
    return (a, b, rest, c)


def with_options(a: Any, /, **options: Any) -> Any:
    return (a, options)


def everything(a: Any, /, b: Any, *rest: Any, c: Any, d: Any = 4, **options: Any) -> Any:
    return (a, b, rest, c, d, options)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (1,), {}),
        (plain, (), {"b": 1, "a": 0}),
        (by_position, (1,), {"c": 5}),
        (by_position, (1, 5), {}),
        (with_rest, (), {}),
        (with_rest, (), {"b": 7}),
        (with_rest, (9, 8, 7, 6), {"c": 5}),
        (with_options, (1,), {"a": 2, "options": 3}),
        (everything, (1, 2, 3), {"c": 4, "e": 5}),
        (everything, (1,), {"b": 2, "c": 3, "d": 4}),
    ],
)
def test_a_call_survives_its_names(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    signature = inspect.signature(fn)
    form = pickle.loads(pickle.dumps(CallForm.of(signature)))
    again_args, again_kwargs = form.apply(signature.bind(*args, **kwargs).arguments)
    assert fn(*again_args, **again_kwargs) == fn(*args, **kwargs)


@hypothesis.given(
    rest=st.lists(st.integers(), max_size=3),
    options=st.dictionaries(st.sampled_from("cefgh"), st.integers()),
)
def test_any_call_of_a_function_that_takes_everything(
    rest: list[int], options: dict[str, int]
) -> None:
    args, kwargs = (1, 2, *rest), {"c": 0, **options}
    signature = inspect.signature(everything)
    again_args, again_kwargs = CallForm.of(signature).apply(
        signature.bind(*args, **kwargs).arguments
    )
    assert everything(*again_args, **again_kwargs) == everything(*args, **kwargs)


def test_the_usual_function_is_called_by_names_only() -> None:
    assert CallForm.of(inspect.signature(plain)) == CallForm()
    assert CallForm().apply({"a": 1}) == ((), {"a": 1})
