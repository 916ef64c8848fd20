"""Values that have the same fingerprint in every process."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import re
import uuid
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic

from raflow import task


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: Any
    y: Any


class Rows(NamedTuple):
    rows: Any


@dataclass(frozen=True)
class Job:
    name: str
    tags: frozenset[str]


class Model(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


@task
def load(x: int) -> set[int]:
    return {x, 1, 2}


def fixed() -> list[Any]:
    """Return values whose order in memory depends on the process, and some of every library."""
    words = {"alpha", "beta", "gamma", "delta", ("x", 1), None, 2.5}
    return [
        words,
        frozenset(words),
        {word: [word] for word in words},
        {frozenset({"a", "b"}): {"c", "d"}},
        [1, 1.5, "ä", b"\0", None, True, 1j, 1 << 100],
        Job("a", frozenset({"x", "y", "z"})),
        Model(name="a", tags={"x", "y", "z"}),
        Colour.RED,
        Point({"p", "q"}, [Decimal("1.10"), uuid.UUID(int=7), re.compile("a+")]),
        dt.datetime(2026, 1, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        functools.partial(load.fn, x=3),
        lambda x: x in {"a", "b", "c"},
        load,
        Job,
        np.arange(12, dtype="f4").reshape(3, 4).T,
        np.array([{"a", "b", "c"}, None], dtype=object),
        pd.DataFrame({"n": [1, 2], "s": ["a", None], "t": pd.to_datetime(["2026-01-01", None])}),
        pl.DataFrame({"n": [1, None], "s": ["a", None], "l": [[1], []]}),
        pa.table({"n": [1, None], "s": ["a", None], "m": [{"a": 1}, None]}),
    ]


def written() -> list[Any]:
    """Return values whose fingerprints stand in a test."""
    return [
        [None, True, 1, 1.5, "ä", b"\0", 1j, 1 << 100],
        {"b": (1, [2]), "a": {3, "x"}},
        [dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Decimal("1.10")],
        Point(1, Rows([2])),
        np.arange(6, dtype="f4").reshape(2, 3),
        pd.DataFrame({"n": [1, 2], "s": pd.array(["a", None], dtype="string")}),
        pl.DataFrame({"n": [1, None], "s": ["a", "b"]}),
        pa.table({"n": [1, None], "l": [[1], []]}),
    ]
