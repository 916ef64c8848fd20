"""Fingerprints: equal for equal values, different for different ones, the same everywhere."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import marshal
import operator
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors, flow, task
from raflow.results import Fingerprinter, _digest, fingerprint
from tests.unit.results import fingerprint_values
from tests.unit.results.fingerprint_values import Colour, Model, Point, Rows

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
HASHABLE = st.recursive(
    KEYS | st.dates() | st.decimals(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
VALUES = st.recursive(
    PLAIN | st.datetimes(timezones=st.none() | st.timezones()) | st.timedeltas() | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Rows, inner)
    ),
    max_leaves=12,
)


def content(value: Any) -> Any:
    """Return what makes values equal, worked out in another way than fingerprints are."""
    kind = type(value)
    if kind is float:
        return kind, struct.pack("d", value)
    if kind is complex:
        return kind, struct.pack("dd", value.real, value.imag)
    if kind in {list, tuple}:
        return kind, tuple(map(content, value))
    if kind in {set, frozenset}:
        return kind, frozenset(map(content, value))
    if kind is dict:
        return kind, frozenset((content(k), content(v)) for k, v in value.items())
    if kind in {Point, Rows}:
        return kind, tuple(content(getattr(value, name)) for name in value._fields)
    if kind is dt.datetime:
        return kind, value.replace(tzinfo=None), value.fold, str(value.tzinfo)
    if kind is decimal.Decimal:
        return kind, str(value)
    return kind, value


def copied(value: Any, turn: Callable[[list[Any]], Any]) -> Any:
    """Return an equal value that shares nothing with this one and has another order."""
    kind = type(value)
    if kind in {list, tuple}:
        return kind([copied(item, turn) for item in value])
    if kind in {set, frozenset}:
        return kind(turn([copied(item, turn) for item in value]))
    if kind is dict:
        return dict(turn([(copied(k, turn), copied(v, turn)) for k, v in value.items()]))
    if kind in {Point, Rows}:
        return kind(*(copied(getattr(value, name), turn) for name in value._fields))
    if kind is str:
        return "".join(list(value))
    return value


@given(VALUES)
def test_equal_values_have_equal_fingerprints(value: Any) -> None:
    assert fingerprint(copied(value, lambda items: items[::-1])) == fingerprint(value)


@given(VALUES, VALUES)
def test_different_values_have_different_fingerprints(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (content(one) == content(other))


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_several_values_have_one_fingerprint(one: list[Any], other: list[Any]) -> None:
    def of_all(values: list[Any]) -> str:
        made = Fingerprinter()
        for value in values:
            made.add(value)
        return made.hexdigest()

    assert (of_all(one) == of_all(other)) == (content(one) == content(other))


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_what_is_inside_of_what_counts(values: list[Any]) -> None:
    assert len({fingerprint(v) for v in (values, [values], tuple(values), {"x": values})}) == 4


class Text(str):
    __slots__ = ()


class Numbers(list[int]):
    pass


@dataclasses.dataclass
class Job:
    name: str
    size: int = 0
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    size: int = 0


class Loose(pydantic.BaseModel, extra="allow"):
    name: str
    _secret: int = 0


class Noted(dict[str, int]):
    note = ""


class Zone(dt.tzinfo):
    def __init__(self, hours: int) -> None:
        self.hours = hours

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=self.hours)

    def dst(self, moment: dt.datetime | None) -> None:
        return None

    def tzname(self, moment: dt.datetime | None) -> str:
        return f"zone {self.hours}"


class Bound:
    def __init__(self, said: Any) -> None:
        self.said = said

    def __raflow_fingerprint__(self) -> Any:
        return self.said

    @task
    def run(self) -> None: ...


class Said:
    def __init__(self, said: Any) -> None:
        self.said = said

    def __raflow_fingerprint__(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class SaidElse(Said):
    pass


class Shade(enum.Flag):
    RED = 1
    BLUE = 2


def double(x: int) -> int:
    return 2 * x


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def counter(n: int) -> Callable[[int], Any]:
    def count(i: int) -> Any:
        return count(i - n) if i > 0 else 0

    return count


@task
def load(x: int) -> int:
    return double(x)


@flow
def etl(x: int) -> Any:
    return load(x)


def noted(note: str) -> Noted:
    made = Noted(a=1)
    made.note = note
    return made


def unfinished() -> Callable[[], Any]:
    def early() -> Any:
        return late

    late: int
    if unfinished is None:
        late = 1
    return early


def wrong() -> Any:
    return object()


def named(text: str, **more: int) -> pydantic.BaseModel:
    return Loose.model_validate({"name": text, **more})


ALL_DIFFERENT: list[Any] = [
    *(None, ..., NotImplemented, 1, 1.0, True, "1", b"1", 1 + 0j, 0, 0.0, -0.0, False, "", b""),
    *(1 << 70, -(1 << 70), "\ud800", "None", float("nan"), float("inf")),
    *([], (), {}, set(), frozenset(), [[]], [()], ([],), {"": None}, [None], {None}),
    *(bytearray(b"1"), memoryview(b"1"), array.array("b", [1]), array.array("i", [1])),
    *(array.array("d", [1]), array.array("u", "1"), memoryview(array.array("i", [1]))),
    *(collections.OrderedDict(a=1), collections.OrderedDict(a=1, b=2)),
    *(collections.OrderedDict(b=2, a=1), {"a": 1, "b": 2}, collections.defaultdict(int, a=1)),
    *(collections.Counter("a"), types.MappingProxyType({"a": 1}), {"a": 1}),
    *(collections.deque([1]), collections.deque([1], 3), types.SimpleNamespace(a=1)),
    *(decimal.Decimal(1), decimal.Decimal("1.0"), fractions.Fraction(1), fractions.Fraction(1, 2)),
    *(dt.date(2026, 1, 1), dt.datetime(2026, 1, 1), dt.time(1), dt.timedelta(1), dt.timedelta(2)),
    *(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, fold=1)),
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    *(dt.UTC, zoneinfo.ZoneInfo("UTC"), dt.timezone(dt.timedelta(hours=1))),
    *(uuid.UUID(int=1), re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a")),
    *(range(3), range(0, 6, 2), range(0), range(1), slice(1), slice(1, 2), slice(None, None, 1)),
    *(Colour.RED, Colour.BLUE, Shade.RED, Shade.RED | Shade.BLUE),
    *(pathlib.PurePath("a"), pathlib.PurePosixPath("b")),
    *(Text("1"), Numbers([1]), Point(1, 2), Point(2, 1), Rows([1]), (1, 2)),
    *(Job("a"), Job("a", 1), Slotted("a"), Slotted("a", 1), Model(name="a"), named("a")),
    *(named("a", more=1), ValueError("a"), ValueError("b"), KeyError("a")),
    errors.TaskFailedError("a", node=1),
    *(Said(1), Said(2), SaidElse(1), Said([1]), Said(Point(1, 2))),
    *(double, adder(1), adder(2), counter(1), counter(2), len, operator.add, "".join, "a".join),
    *(functools.partial(double, 1), functools.partial(double, 2), functools.partial(double, x=1)),
    *(int, str, Job, Slotted, Colour, os, sys, load, etl),
    *(Noted(a=1), noted("x"), noted("y"), Bound(1).run, Bound(2).run, unfinished()),
    *(dt.datetime(2026, 1, 1, tzinfo=Zone(1)), dt.datetime(2026, 1, 1, tzinfo=Zone(2))),
    *(Said(1).__raflow_fingerprint__, Said(2).__raflow_fingerprint__),
]


def test_values_of_every_kind_differ() -> None:
    told: dict[str, Any] = {}
    for value in ALL_DIFFERENT:
        other = told.setdefault(fingerprint(value), value)
        assert other is value, (other, value)
    assert all(re.fullmatch("[0-9a-f]{32}", text) for text in told)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (range(0), range(5, 5)),
        (range(0, 5, 2), range(0, 6, 2)),
        (Job("a", note="x"), Job("a", note="y")),
        (Loose(name="a"), Loose.model_construct(name="a")),
        (named("a", x=1, y=2), named("a", y=2, x=1)),
        (collections.defaultdict(int, a=1), collections.defaultdict(lambda: 0, a=1)),
        (adder(3), adder(3)),
        (counter(3), counter(3)),
        (load, load.with_options(retries=3, name="other")),
        (Said(1), Said(True + 0)),
        (memoryview(b"abcd")[::2], memoryview(b"ac")),
    ],
)
def test_what_does_not_make_values_differ(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(other)


def test_large_values_are_as_small_ones() -> None:
    data = os.urandom(3 << 20)
    assert fingerprint(data) == fingerprint(bytes(bytearray(data))) != fingerprint(data[:-1])
    assert fingerprint([data]) == fingerprint([data]) != fingerprint([data, b""])
    assert fingerprint([data, object]) != fingerprint([data[:-1], object])
    assert fingerprint("ä" * 2_000_000) != fingerprint("ä" * 2_000_001)
    many: list[Any] = [str(n) for n in range(200_000)]
    assert fingerprint(many) == fingerprint(list(many)) != fingerprint([*many, 1])
    assert fingerprint(set(many)) == fingerprint({*many[100:], *many})


def test_large_buffers_are_as_small_ones() -> None:
    data = os.urandom(100_000)
    assert fingerprint(bytearray(data)) == fingerprint(bytearray(data))
    assert len({fingerprint([bytearray(data[:n]), 1]) for n in (100_000, 99_999, 10, 9)}) == 4
    assert fingerprint([bytearray(60_000)] * 3) != fingerprint([bytearray(60_000)] * 4)
    doubles = array.array("d", range(20_000))
    assert fingerprint(doubles) == fingerprint(array.array("d", doubles))
    assert fingerprint(doubles) != fingerprint(array.array("d", doubles[:-1]))


def test_values_of_gigabytes_are_written_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        """Writes texts as marshal does, but only short ones."""

        @staticmethod
        def dumps(value: Any, version: int) -> bytes:
            data = marshal.dumps(value, version)
            if len(data) > 100:
                raise ValueError
            return data

    monkeypatch.setattr(_digest, "marshal", Small)
    monkeypatch.setattr(_digest, "_LARGE", 50)
    monkeypatch.setattr(_digest, "_LONGEST", 60)
    texts = ["x" * n for n in (10, 200, 201)]
    values = [*texts, *(text.encode() for text in texts), b"y" * 55, texts, texts[:2]]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(["x" * 200, 1]) == fingerprint(["xx" * 100, 1])


def test_the_byte_order_of_the_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    here = array.array("i", [1, 2, 3])
    expected = fingerprint(here)
    there = array.array("i", here)
    there.byteswap()
    monkeypatch.setattr(sys, "byteorder", "big")
    assert fingerprint(there) == expected
    assert there[0] != 1


def test_a_time_zone_must_have_a_name() -> None:
    counts = struct.pack(">6L", 0, 0, 0, 0, 1, 4)
    file = b"TZif" + bytes(16) + counts + struct.pack(">lBB", 0, 0, 0) + b"UTC\0"
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(file))
    with pytest.raises(errors.CacheKeyError, match=r"value.tzinfo is a time zone without a name"):
        fingerprint(dt.datetime(2026, 1, 1, tzinfo=zone))


def test_private_attributes_of_models_count() -> None:
    one, other = Loose(name="a"), Loose(name="a")
    other._secret = 1
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (threading.Lock(), "value is of type '_thread.lock', of which raflow does not know"),
        ([1, (2, object())], "value[1][1] is of type 'builtins.object'"),
        ({"a": {1: object()}}, "value['a'][1] is of type"),
        ({"a": {object(): 1}}, "value['a'] key <object object at"),
        ({object()}, "value{…} is of type"),
        (Job("a", size=object()), "value.size is of type"),  # type: ignore[arg-type]  # on purpose
        (Point(1, [object()]), "value.y[0] is of type"),
        (Model.model_construct(name=wrong()), "value.name is of type"),
        (functools.partial(print, object()), "value.args[0] is of type"),
        (adder(object()), "value.<n> is of type"),  # type: ignore[arg-type]  # on purpose
        (ValueError(object()), "value.args[0] is of type"),
        (object().__str__, "value.__self__ is of type"),
        (Said(object()), "value.__raflow_fingerprint__() is of type"),
        (Said(KeyError("x")), "its method __raflow_fingerprint__ raised KeyError: 'x'"),
        (zoneinfo.ZoneInfo, None),
        (
            Path("/proc/nosuch"),
            "value is the path '/proc/nosuch', whose content counts, but it can",
        ),
        (Path("/dev/null"), "is the path '/dev/null', which is neither a file nor a directory."),
    ],
)
def test_what_has_no_fingerprint_is_named_with_a_remedy(value: Any, told: str | None) -> None:
    if told is None:
        assert fingerprint(value)
        return
    with pytest.raises(errors.CacheKeyError) as caught:
        fingerprint(value)
    assert told in str(caught.value)
    with pytest.raises(errors.CacheKeyError, match=r"^rows"):
        fingerprint(value, "rows")


def test_what_is_inside_itself_has_no_fingerprint() -> None:
    circle: list[Any] = [1]
    circle.append({"again": circle})
    with pytest.raises(errors.CacheKeyError, match=r"value\[1\]\['again'\] contains itself"):
        fingerprint(circle)
    said = Said(None)
    said.said = [said]
    with pytest.raises(errors.CacheKeyError, match="contains itself"):
        fingerprint(said)
    twice = [1, object]
    assert fingerprint([twice, twice]) == fingerprint([list(twice), list(twice)])
    deep: list[Any] = [object]
    for _ in range(10_000):
        deep = [deep, object]
    with pytest.raises(errors.CacheKeyError, match="nested too deeply"):
        fingerprint(deep)


def test_a_path_stands_for_the_content_of_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_bytes(b"1,2")
    other.write_bytes(b"1,2")
    before = fingerprint(one)
    assert before == fingerprint(other) != fingerprint(str(one))
    one.write_bytes(b"1,3")
    assert fingerprint(one) != before
    assert fingerprint({"path": other}) == fingerprint({"path": other})


def test_a_path_of_a_directory_stands_for_all_files_below(tmp_path: Path) -> None:
    def made(name: str, files: dict[str, str]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for inner, text in files.items():
            (folder / inner).parent.mkdir(exist_ok=True)
            (folder / inner).write_text(text)
        return folder

    first = fingerprint(made("first", {"a": "1", "b/c": "2"}))
    assert first == fingerprint(made("second", {"b/c": "2", "a": "1"}))
    others = [{"a": "1"}, {"a": "1", "b": "2"}, {"a": "1", "b/d": "2"}, {"a": "", "b/c": "21"}, {}]
    prints = {fingerprint(made(str(n), files)) for n, files in enumerate(others)}
    assert len(prints | {first}) == len(others) + 1
    linked = made("linked", {"a": "1", "b/c": "2"})
    (linked / "b" / "up").symlink_to("..")
    (linked / "nowhere").symlink_to("gone")
    assert fingerprint(linked) == fingerprint(linked) != first


SCRIPT = """
import sys
from tests.unit.results.fingerprint_values import fixed
from raflow.results import fingerprint
for value in fixed():
    print(type(value).__name__, fingerprint(value))
"""


def run_in_new_process(seed: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fingerprints_are_the_same_in_every_process(tmp_path: Path) -> None:
    first, second = (run_in_new_process(seed, tmp_path) for seed in ("1", "2"))
    assert first == second
    here = [f"{type(value).__name__} {fingerprint(value)}" for value in fingerprint_values.fixed()]
    assert first.splitlines() == here


def test_what_was_written_once_is_found_again() -> None:
    # Another fingerprint means that all caches are computed anew: `_digest._FORM` says so.
    assert [fingerprint(value) for value in fingerprint_values.written()] == [
        "1a69265ac7d9fe7f206d21bc381abf13",
        "7183f9ed9b11ea2f8104148886ec259c",
        "6eca154fa3883c06a3f7bc1f1e746a9b",
        "6b0f7ccd30cb6cea5677557ab3476bfb",
        "0498a05d23dcc1e68f0f5f22d09d9467",
        "a412f6026735ee1b80ea46b924223bc4",
        "56508d5e33dc479de6a2672435247315",
        "ab9f2590d2815df556601d4b68eff336",
    ]


def test_no_library_is_imported_for_a_fingerprint(tmp_path: Path) -> None:
    script = (
        "import sys; from raflow.results import fingerprint; fingerprint([1, {2, (3,)}, int]);"
        "print({'numpy', 'pandas', 'polars', 'pyarrow', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.strip() == "set()"
