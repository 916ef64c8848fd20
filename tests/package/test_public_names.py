"""Every package shows its names in `__all__` (which ruff keeps sorted), and says what they are."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import raflow

FACADES = [
    "raflow",
    *(
        module.name
        for module in pkgutil.walk_packages(raflow.__path__, "raflow.")
        if module.ispkg and "._" not in module.name
    ),
]


@pytest.mark.parametrize("name", FACADES)
def test_a_facade_lists_names_that_exist(name: str) -> None:
    facade = importlib.import_module(name)
    assert len(set(facade.__all__)) == len(facade.__all__) > 0
    assert [public for public in facade.__all__ if not hasattr(facade, public)] == []
    assert facade.__doc__


@pytest.mark.parametrize("name", FACADES)
def test_public_classes_and_functions_are_documented(name: str) -> None:
    facade = importlib.import_module(name)
    public = {symbol: getattr(facade, symbol) for symbol in facade.__all__}
    undocumented = [
        symbol
        for symbol, value in public.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__
    ]
    assert undocumented == []
