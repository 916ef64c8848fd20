"""Values that are kept and read back, in each way a policy asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pickle
import sys
import threading
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd  # type: ignore[import-untyped,unused-ignore]
import pandas.testing  # type: ignore[import-untyped,unused-ignore]
import polars as pl
import polars.testing
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors, model
from raflow.model import ResultInfo, ResultPolicy, Serializer, TaskRunKey
from raflow.results import Keeper, read_result, read_results
from raflow.results._keeper import INLINE_LIMIT

KEY = b"k" * 32
ALWAYS = ResultPolicy(persist=True)
SMALL = ResultPolicy()
RUN = TaskRunKey(3, 7)


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(flow_run_id="run-1", storage=str(tmp_path / "results"), signing_key=KEY)


def keep(keeper: Keeper, value: object, policy: ResultPolicy = SMALL) -> ResultInfo:
    return keeper.keep(value, policy, run=RUN, attempt=2)


def with_serializer(name: Serializer, *, persist: bool | None = True) -> ResultPolicy:
    return ResultPolicy(persist=persist, serializer=name)


def same(left: Any, right: Any) -> bool:
    """Equal in value and in every type."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or (left == right and math.copysign(1, left) == math.copysign(1, right))
    return bool(left == right)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**66)
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.dates()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
    ),
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_VALUES)
def test_every_value_comes_back_as_it_was(value: object) -> None:
    info = Keeper(flow_run_id="r", storage="/nowhere", signing_key=KEY).keep(
        value, SMALL, run=RUN, attempt=1
    )
    assert same(read_result(info, signing_key=KEY), value)


@given(_JSON)
def test_values_that_json_can_carry_are_json(value: object) -> None:
    info = Keeper(flow_run_id="r", storage="/nowhere", signing_key=KEY).keep(
        value, with_serializer(Serializer.JSON), run=RUN, attempt=1
    )
    assert info.serializer == "json"
    assert same(read_result(info, signing_key=KEY), value)
    auto = Keeper(flow_run_id="r", storage="/nowhere", signing_key=KEY).keep(
        value, SMALL, run=RUN, attempt=1
    )
    assert (auto.serializer, auto.inline, auto.digest) == ("json", info.inline, info.digest)


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, float("nan"), float("inf"), 2**64, date(2026, 1, 1), {"a": (1,)}, b"x"],
)
def test_explicit_json_refuses_what_it_would_change(keeper: Keeper, value: object) -> None:
    with pytest.raises(errors.SerializationError, match=r"serializer='json'.*auto"):
        keep(keeper, value, with_serializer(Serializer.JSON, persist=None))


def test_explicit_json_refuses_half_a_surrogate_pair_which_auto_pickles(keeper: Keeper) -> None:
    with pytest.raises(errors.SerializationError, match="surrogates"):
        keep(keeper, "\ud800", with_serializer(Serializer.JSON))
    assert keep(keeper, "\ud800", ALWAYS).serializer == "pickle"


def test_explicit_pickle_is_used_for_none_too(keeper: Keeper) -> None:
    info = keep(keeper, None, with_serializer(Serializer.PICKLE))
    assert info.serializer == "pickle"
    assert read_result(info, signing_key=KEY) is None


def test_one_and_true_stay_apart(keeper: Keeper) -> None:
    for value in (1, True, 1, 0, False):
        back = read_result(keep(keeper, value), signing_key=KEY)
        assert same(back, value)


def test_nothing_is_kept_when_the_policy_says_so(keeper: Keeper) -> None:
    for value in (None, 1, [1, 2]):
        info = keep(keeper, value, ResultPolicy(persist=False))
        assert (info.serializer, info.inline, info.url, info.digest) == ("", None, "", "")
        assert info.preview == repr(value)
        with pytest.raises(errors.NotFoundError, match="persist_result=True"):
            read_result(info, signing_key=KEY)


def test_what_is_too_large_for_the_database_is_kept_only_when_asked_for(
    keeper: Keeper, tmp_path: Path
) -> None:
    value = "x" * (INLINE_LIMIT + 1)
    assert keep(keeper, value).serializer == ""
    assert not (tmp_path / "results").exists()
    info = keep(keeper, value, ALWAYS)
    assert info.inline is None
    assert info.url == f"file://{tmp_path}/results/run-1/3-7.2.json"
    assert read_result(info, signing_key=KEY) == value
    assert [p.name for p in (tmp_path / "results" / "run-1").iterdir()] == ["3-7.2.json"]


def test_the_limit_counts_serialized_bytes(tmp_path: Path) -> None:
    keeper = Keeper(flow_run_id="r", storage=str(tmp_path), signing_key=KEY, inline_limit=10)
    assert keep(keeper, [1, 2, 3, 45]).inline == b"[1,2,3,45]"
    assert keep(keeper, [1, 2, 3, 456]).inline is None


def test_a_large_value_is_not_serialized_in_vain(keeper: Keeper) -> None:
    class Heavy:
        pickled = 0

        def __reduce__(self) -> Any:
            Heavy.pickled += 1
            return str, ()

    heavy = [np.zeros(10**6), Heavy()]
    assert keep(keeper, heavy).serializer == ""
    assert Heavy.pickled == 0
    assert keep(keeper, list(range(2_000_000))).serializer == ""


def test_pickling_stops_at_the_limit(keeper: Keeper) -> None:
    class Endless:
        """Looks small, and pickles to more than any limit."""

        produced = 0

        def __reduce__(self) -> Any:
            def chunks() -> Any:
                for _ in range(10_000):
                    Endless.produced += 1
                    yield "x" * 10_000 + str(Endless.produced)

            return list, (), None, chunks()

    assert keep(keeper, Endless()).serializer == ""
    assert Endless.produced < 50


def test_what_cannot_be_pickled_is_described_or_refused_as_the_policy_says(keeper: Keeper) -> None:
    lock = threading.Lock()
    assert keep(keeper, lock).type == "_thread.lock"
    assert keep(keeper, lock).serializer == ""
    with pytest.raises(errors.UnserializableResultError, match=r"'_thread\.lock'.*persist_result"):
        keep(keeper, lock, ALWAYS)
    with pytest.raises(errors.SerializationError, match=r"'_thread\.lock'"):
        keep(keeper, lock, with_serializer(Serializer.PICKLE, persist=None))


_POLARS = pl.DataFrame(
    {"n": [1, None, 3], "s": ["a", "b", None], "d": [date(2026, 1, d) for d in (1, 2, 3)]}
).with_columns(c=pl.col("s").cast(pl.Categorical), l=pl.concat_list("n", "n"))


@pytest.mark.parametrize("way", [Serializer.AUTO, Serializer.ARROW, Serializer.PICKLE])
def test_polars_tables(keeper: Keeper, way: Serializer) -> None:
    info = keep(keeper, _POLARS, with_serializer(way))
    assert info.serializer == ("pickle" if way is Serializer.PICKLE else "arrow")
    back = read_result(info, signing_key=KEY)
    assert isinstance(back, pl.DataFrame)
    polars.testing.assert_frame_equal(back, _POLARS)


@pytest.mark.parametrize(
    ("frame", "serializer"),
    [
        (pd.DataFrame({"x": [1, 2], "s": ["a", None], "t": pd.to_datetime(["2026"] * 2)}), "arrow"),
        (pd.DataFrame({"x": [1.0]}, index=pd.Index(["row"], name="key")), "arrow"),
        (pd.DataFrame({"x": pd.Categorical(["a", "b"])}), "arrow"),
        (pd.DataFrame({"x": []}), "arrow"),
        (pd.DataFrame({0: [1]}), "pickle"),
        (pd.DataFrame({"x": [(1, 2), "a"]}), "pickle"),
        (pd.DataFrame({"x": [{"a": 1}, {"b": 2}]}), "pickle"),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])), "pickle"),
        (pd.DataFrame({"x": [1, 2]}, index=pd.MultiIndex.from_product([["a"], [1, 2]])), "pickle"),
    ],
)
def test_pandas_tables_come_back_exactly(
    keeper: Keeper, frame: pd.DataFrame, serializer: str
) -> None:
    info = keep(keeper, frame, ALWAYS)
    assert info.serializer == serializer
    back = read_result(info, signing_key=KEY)
    assert isinstance(back, pd.DataFrame)
    pandas.testing.assert_frame_equal(back, frame)


def test_pandas_attributes_are_kept(keeper: Keeper) -> None:
    frame = pd.DataFrame({"x": [1]})
    frame.attrs["unit"] = ("m",)
    back: Any = read_result(keep(keeper, frame, ALWAYS), signing_key=KEY)
    assert back.attrs == {"unit": ("m",)}


def test_pyarrow_tables_keep_their_own_metadata(keeper: Keeper) -> None:
    for metadata in (None, {b"mine": b"1"}):
        table = pa.table({"x": [1, 2]}).replace_schema_metadata(metadata)
        info = keep(keeper, table, ALWAYS)
        assert info.serializer == "arrow"
        back: Any = read_result(info, signing_key=KEY)
        assert back.equals(table, check_metadata=True)
        assert back.schema.metadata == metadata


def test_a_subclass_of_a_table_is_not_turned_into_its_base(keeper: Keeper) -> None:
    frame = Measured({"x": [1]})
    info = keep(keeper, frame, ALWAYS)
    assert info.serializer == "pickle"
    assert type(read_result(info, signing_key=KEY)) is Measured


class Measured(pd.DataFrame):  # type: ignore[misc,unused-ignore]  # pandas may come without types
    """A table of a user's own class."""


def test_explicit_arrow_refuses_what_is_no_table(keeper: Keeper) -> None:
    with pytest.raises(errors.SerializationError, match=r"'builtins\.list', which is no table"):
        keep(keeper, [1], with_serializer(Serializer.ARROW))
    mixed = pd.DataFrame({"x": [1, "a"]})
    with pytest.raises(errors.SerializationError, match="one type"):
        keep(keeper, mixed, with_serializer(Serializer.ARROW))


def test_tables_are_pickled_without_pyarrow(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.ipc", None)
    table = pl.DataFrame({"x": [1]})
    assert keep(keeper, table, ALWAYS).serializer == "pickle"
    with pytest.raises(errors.SerializationError, match=r"pip install 'raflow\[arrow\]'"):
        keep(keeper, table, with_serializer(Serializer.ARROW))


@dataclasses.dataclass
class Bomb:
    """Tells when it is unpickled."""

    opened = 0

    def __reduce__(self) -> Any:
        return Bomb._open, ()

    @staticmethod
    def _open() -> None:
        Bomb.opened += 1


def test_a_pickle_with_a_foreign_signature_is_never_opened(keeper: Keeper) -> None:
    info = keep(keeper, Bomb(), ALWAYS)
    with pytest.raises(errors.SerializationError, match="without a valid signature"):
        read_result(info, signing_key=b"other" * 8)
    forged = b"\0" * 32 + pickle.dumps(Bomb())
    planted = dataclasses.replace(info, inline=forged, digest=hashlib.sha256(forged).hexdigest())
    with pytest.raises(errors.SerializationError, match="not opened"):
        read_result(planted, signing_key=KEY)
    assert Bomb.opened == 0
    read_result(info, signing_key=KEY)
    assert Bomb.opened == 1


def test_damage_is_seen(keeper: Keeper, tmp_path: Path) -> None:
    info = keep(keeper, "x" * 100_000, ALWAYS)
    path = tmp_path / "results" / "run-1" / "3-7.2.json"
    path.write_bytes(path.read_bytes().replace(b"x", b"y", 1))
    with pytest.raises(errors.ResultStorageError, match="not what was written"):
        read_result(info, signing_key=KEY)
    path.unlink()
    with pytest.raises(errors.ResultStorageError, match="cannot be read"):
        read_result(info, signing_key=KEY)
    inline = dataclasses.replace(keep(keeper, [1, 2]), inline=b"[1,3]")
    with pytest.raises(errors.ResultStorageError, match="SHA-256"):
        read_result(inline, signing_key=KEY)


def test_a_value_whose_class_is_gone_says_so(keeper: Keeper) -> None:
    data = b"cno_such_module\nThing\n)R."
    info = dataclasses.replace(keep(keeper, {1: 2}, ALWAYS), type="no_such_module.Thing")
    signed = _signed(data)
    gone = dataclasses.replace(info, inline=signed, digest=hashlib.sha256(signed).hexdigest())
    with pytest.raises(errors.SerializationError, match=r"no_such_module.*importable"):
        read_result(gone, signing_key=KEY)


def _signed(data: bytes) -> bytes:
    from raflow.results import _serialize

    return _serialize._sign(data, KEY) + data


def test_a_serializer_of_a_later_version_is_named(keeper: Keeper) -> None:
    later = dataclasses.replace(keep(keeper, 1), serializer="msgpack")
    with pytest.raises(errors.SerializationError, match="'msgpack'"):
        read_result(later, signing_key=KEY)


def test_the_storage_of_the_task_wins_and_relative_paths_start_at_the_driver(
    tmp_path: Path,
) -> None:
    keeper = Keeper(flow_run_id="r", storage="a", signing_key=KEY, base=str(tmp_path))
    large = "x" * 100_000
    assert keep(keeper, large, ALWAYS).url == f"file://{tmp_path}/a/r/3-7.2.json"
    own = ResultPolicy(persist=True, storage=f"file://{tmp_path}/own")
    single = keeper.keep(large, own, run=TaskRunKey(5), attempt=1)
    assert single.url == f"file://{tmp_path}/own/r/5.1.json"
    memory = keep(keeper, large, ResultPolicy(persist=True, storage="memory://bucket/results"))
    assert memory.url == "memory:///bucket/results/r/3-7.2.json"
    assert read_result(memory, signing_key=KEY) == large


def test_keepers_travel_and_do_not_show_their_key(keeper: Keeper) -> None:
    assert pickle.loads(pickle.dumps(keeper)) == keeper
    assert "kkk" not in repr(keeper)


# --- Plain values together ------------------------------------------------------------------------

plain_values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
)


@given(values=st.lists(plain_values), persist=st.sampled_from([None, True]))
def test_plain_values_are_described_together_as_one_by_one(
    values: list[model.Plain], persist: bool | None
) -> None:
    keeper = Keeper(flow_run_id="run", storage="unused", signing_key=KEY)
    policy = ResultPolicy(persist=persist)
    kept = keeper.keep_plain(values, policy)
    assert kept is not None
    for position, value in enumerate(orjson.loads(kept)):
        alone = keeper.keep(values[position], policy, run=RUN, attempt=2)
        assert model.describe_plain(value) == alone
        assert type(value) is type(values[position])


@pytest.mark.parametrize(
    "value",
    [math.inf, math.nan, 2**64, -(2**63) - 1, "\udcff", "x" * INLINE_LIMIT, "\0" * 20_000],
    ids=["infinite", "no number", "large", "small", "half a pair", "long", "long as JSON"],
)
@pytest.mark.parametrize("others", [[], [None], [1, "a", 2.0, None]])
def test_values_that_json_changes_are_kept_one_by_one(
    keeper: Keeper, value: object, others: list[object]
) -> None:
    assert keeper.keep_plain([*others, value], SMALL) is None


@pytest.mark.parametrize(
    "policy",
    [
        ResultPolicy(persist=False),
        ResultPolicy(serializer=Serializer.PICKLE),
        ResultPolicy(serializer=Serializer.ARROW),
    ],
)
def test_the_policy_may_ask_for_values_one_by_one(keeper: Keeper, policy: ResultPolicy) -> None:
    assert keeper.keep_plain([1], policy) is None


def test_what_is_inline_counts_for_each_value(keeper: Keeper) -> None:
    keeper = dataclasses.replace(keeper, inline_limit=1000)
    assert keeper.keep_plain(("x" * 900,) * 3, SMALL) is not None
    assert keeper.keep_plain(["x" * 999], SMALL) is None
    tiny = dataclasses.replace(keeper, inline_limit=5)
    assert tiny.keep_plain([123456], SMALL) is None


def test_a_text_is_kept_by_its_length_not_by_its_memory(keeper: Keeper) -> None:
    # One character beyond the basic plane makes Python take four bytes for each of the others.
    text = "x" * 30_000 + "🚀"
    assert sys.getsizeof(text) > INLINE_LIMIT
    assert keep(keeper, text).inline == orjson.dumps(text)


def test_several_values_are_read_in_order(keeper: Keeper) -> None:
    values = [*range(5), *(str(n) * 100_000 for n in range(40)), None]
    infos = [
        keeper.keep(value, ALWAYS, run=TaskRunKey(3, n), attempt=1)
        for n, value in enumerate(values)
    ]
    assert sum(1 for info in infos if info.url) == 40
    assert read_results(infos, signing_key=KEY) == values
    assert read_results(infos[:6], signing_key=KEY) == values[:6]
    assert read_results([], signing_key=KEY) == []
    assert [keeper.read(info) for info in infos[:6]] == values[:6]


def test_the_first_value_that_cannot_be_read_is_named(keeper: Keeper) -> None:
    infos = [
        keeper.keep(str(n) * 100_000, ALWAYS, run=TaskRunKey(3, n), attempt=1) for n in range(9)
    ]
    for n in (4, 7):
        Path(infos[n].url.removeprefix("file://")).unlink()
    with pytest.raises(errors.ResultStorageError, match=r"3-4\.1\.json"):
        read_results(infos, signing_key=KEY)
    Path(infos[2].url.removeprefix("file://")).write_bytes(b"damaged")
    with pytest.raises(errors.ResultStorageError, match="its SHA-256 differs"):
        read_results(infos, signing_key=KEY)
