"""Errors cross process borders and name what they are about."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import cloudpickle
import pytest

from raflow import errors

CLASSES: list[type[Any]] = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, BaseException)
]


def test_every_class_is_public_and_in_the_tree() -> None:
    names = {cls.__name__ for cls in CLASSES}
    assert names == set(errors.__all__) - {"closest"}
    tree = errors.__doc__ or ""
    assert [name for name in names if name not in tree] == []
    assert all(issubclass(cls, errors.RaflowError | errors.Interruption) for cls in CLASSES)


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES if "code" in vars(cls)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
def test_every_error_pickles_round_trip(cls: type[Any], pickler: Any) -> None:
    error = cls("what happened", task="load", attempts=[1, 2])
    again = pickle.loads(pickler.dumps(error))
    assert type(again) is cls
    assert str(again) == again.message == "what happened"
    assert (again.task, again.attempts) == ("load", [1, 2])
    assert again.details == {"task": "load", "attempts": [1, 2]}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
def test_an_error_without_a_message_says_what_its_class_means(cls: type[Any]) -> None:
    assert str(cls()) == (cls.__doc__ or "").splitlines()[0]


def test_interruptions_are_not_caught_with_exceptions() -> None:
    interruptions = [cls for cls in CLASSES if issubclass(cls, errors.Interruption)]
    assert len(interruptions) == 5
    assert not any(issubclass(cls, Exception) for cls in interruptions)


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (errors.DefinitionError, ValueError),
        (errors.ParameterError, ValueError),
        (errors.FutureUsedAsValueError, TypeError),
        (errors.FutureAttributeError, AttributeError),
        (errors.TaskTimedOutError, TimeoutError),
        (errors.FlowRunTimedOutError, TimeoutError),
        (errors.ResultStorageError, OSError),
        (errors.NotFoundError, LookupError),
    ],
)
def test_errors_are_caught_as_what_python_users_expect(cls: type, base: type) -> None:
    assert issubclass(cls, base)


def test_an_unknown_detail_is_an_ordinary_missing_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = errors.RaflowError("x", task="load").nothing


def test_not_found_names_the_closest() -> None:
    error = errors.NotFoundError.of("flow", "elt", ["etl", "report"], "List them with `flows ls`.")
    assert str(error) == "No flow 'elt'. Did you mean 'etl'? List them with `flows ls`."
    assert error.closest == ["etl"]
    assert str(errors.NotFoundError.of("flow", "zzz", ["etl"])) == "No flow 'zzz'."
