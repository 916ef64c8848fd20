"""What a future can do, and how it answers when it is mistaken for its value."""

from __future__ import annotations

import asyncio
import copy
import math
import operator
import os
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from raflow import errors
from raflow.define import MapFuture, TaskFuture, task
from raflow.model import State, StateName, TaskRunKey
from tests.unit.define.fake_flow import FakeFlow, body_of


@task
def extract(region: str = "eu") -> Any:
    return region


MISUSES: dict[str, Callable[[Any], object]] = {
    "if": bool,
    "not": operator.not_,
    "iteration": list,
    "unpacking": lambda f: [*f],
    "len": len,
    "index": lambda f: f[0],
    "slice": lambda f: f[1:2],
    "setitem": lambda f: operator.setitem(f, 0, 1),
    "delitem": lambda f: operator.delitem(f, 0),
    "in": lambda f: 1 in f,
    "found in": lambda f: f in [1, 2],
    "reversed": reversed,
    "add": lambda f: f + 1,
    "radd": lambda f: 1 + f,
    "iadd": lambda f: operator.iadd(f, 1),  # type: ignore[no-untyped-call]  # typeshed has none
    "sub": lambda f: f - 1,
    "rsub": lambda f: 1 - f,
    "mul": lambda f: f * 2,
    "matmul": lambda f: f @ f,
    "truediv": lambda f: f / 2,
    "rfloordiv": lambda f: 2 // f,
    "mod": lambda f: f % 2,
    "pow": lambda f: f**2,
    "rpow": lambda f: 2**f,
    "divmod": lambda f: divmod(f, 2),
    "or": lambda f: f | {},
    "rand": lambda f: {1} & f,
    "shift": lambda f: f << 1,
    "neg": operator.neg,
    "invert": operator.invert,
    "abs": abs,
    "int": int,
    "float": float,
    "complex": complex,
    "round": round,
    "floor": math.floor,
    "range": range,
    "lt": lambda f: f < 1,
    "ge": lambda f: f <= 1,
    "eq": lambda f: f == 1,
    "ne": lambda f: f != 1,
    "reflected eq": lambda f: f == 1,
    "call": lambda f: f(),
    "f-string": lambda f: f"{f}",
    "format": "{:>5}".format,
    "bytes": bytes,
    "path": os.fspath,
    "attribute": lambda f: f.columns,
    "method": lambda f: f.head(),
}
OF_MAPS = {"if", "in", "index", "iteration", "len", "not", "reversed", "slice", "unpacking"}


@pytest.mark.parametrize("use", MISUSES.values(), ids=MISUSES)
def test_a_future_is_not_its_value(body: FakeFlow, use: Callable[[Any], object]) -> None:
    future = extract()
    with pytest.raises(errors.FutureUsedAsValueError) as caught:
        use(future)
    told = str(caught.value)
    assert told.startswith("The future of task 'extract' (called at test_futures.py:")
    assert " at test_futures.py:" in told.partition(")")[2]
    assert "Call `.result()` on it" in told
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("use", sorted(MISUSES.keys() - OF_MAPS))
def test_a_mapped_future_is_not_a_value_either(body: FakeFlow, use: str) -> None:
    with pytest.raises(errors.FutureUsedAsValueError, match="The mapped future of task 'extract'"):
        MISUSES[use](extract.map(["a"]))


def test_with_and_async_with_are_refused(body: FakeFlow) -> None:
    future: Any = extract()
    with pytest.raises(errors.FutureUsedAsValueError, match="used in a `with`"), future:
        pass

    async def enter() -> None:
        async with future:
            pass

    async def loop() -> None:
        async for _ in future:
            pass

    with pytest.raises(errors.FutureUsedAsValueError, match="used in a `with`"):
        asyncio.run(enter())
    with pytest.raises(errors.FutureUsedAsValueError, match="used in an `async for`"):
        asyncio.run(loop())


def test_asking_whether_there_is_an_attribute_is_fine(body: FakeFlow) -> None:
    future = extract()
    assert not hasattr(future, "columns")
    assert not hasattr(future, "_repr_html_")
    assert getattr(future, "__array__", None) is None
    with pytest.raises(AttributeError, match="no attribute '_private'"):
        _ = future._private


def test_str_and_repr_show_the_key(body: FakeFlow) -> None:
    assert (str(extract()), repr(extract())) == ("<TaskFuture extract-0>", "<TaskFuture extract-1>")
    mapped = extract.map(["a", "b"])
    assert (repr(mapped), mapped[1].key) == ("<MapFuture extract-2>", "extract-2[1]")


def test_futures_can_be_compared_hashed_and_copied(body: FakeFlow) -> None:
    one, two = extract(), extract()
    mapped = extract.map(["a", "b"])
    assert one == one  # noqa: PLR0124 - equality is the point
    assert one != two
    assert mapped[0] == mapped[0]
    assert mapped[0] != mapped[1]
    assert {one, two, mapped[0], mapped[0], mapped} == {mapped, mapped[0], two, one}
    assert two in [one, two]
    assert copy.copy(one) is one
    assert copy.deepcopy([one])[0] is one
    with body_of(FakeFlow()):
        assert extract() != one


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_future_does_not_travel(body: FakeFlow, pickler: Any) -> None:
    class Hidden:
        def __init__(self, future: object) -> None:
            self.future = future

    for future in (extract(), extract.map(["a"]), Hidden(extract())):
        with pytest.raises(errors.FutureUsedAsValueError) as caught:
            pickler.dumps([future] if pickler is cloudpickle else getattr(future, "future", future))
        assert "inside an object that raflow cannot look into" in str(caught.value)
        assert "dataclass or pydantic model" in str(caught.value)


def test_result_waits_in_the_flow(body: FakeFlow) -> None:
    future = extract()
    body.values[0, None] = 42
    assert future.result() == future.result(timeout=1) == 42
    failure = ValueError("no")
    body.values[0, None] = failure
    assert future.result(raise_on_failure=False) is failure
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_state_and_done(body: FakeFlow) -> None:
    future, mapped = extract(), extract.map(["a", "b"])
    failed = State(name=StateName.FAILED, at=1.0)
    body.states = {TaskRunKey(0): failed, TaskRunKey(1, 1): failed}
    assert future.state is failed
    assert mapped[1].state is failed
    assert [state.name for state in mapped.states] == [StateName.PENDING, StateName.FAILED]
    assert future.done()
    assert mapped[1].wait(3)
    body.over = False
    assert not mapped.wait()
    assert body.waits == [(0, None, 0), (1, 1, 3), (1, None, None)]


def test_await_gives_the_value(body: FakeFlow) -> None:
    body.values = {(0, None): 1, (1, None): [2, 3], (1, 0): 2}

    async def main() -> Any:
        mapped = extract.map(["a", "b"])
        return await future, await mapped, await mapped[0], await asyncio.gather(future)

    future = extract()
    assert asyncio.run(main()) == (1, [2, 3], 2, [1])


def test_a_mapped_future_is_a_sequence_of_futures(body: FakeFlow) -> None:
    mapped = extract.map(["a", "b", "c"])
    assert isinstance(mapped, MapFuture)
    assert (len(mapped), mapped.known_length, bool(mapped)) == (3, 3, True)
    assert all(isinstance(item, TaskFuture) for item in mapped)
    assert [item.key for item in mapped] == ["extract-0[0]", "extract-0[1]", "extract-0[2]"]
    assert mapped[-1] == mapped[2]
    assert mapped[::2] == [mapped[0], mapped[2]]
    assert mapped[1] in mapped
    assert next(reversed(mapped)) == mapped[2]
    with pytest.raises(IndexError, match="has 3 items, so there is no item 3"):
        mapped[3]
    body.values[0, None] = [1, 2, 3]
    assert mapped.result() == [1, 2, 3]
    assert not extract.map([])


def test_an_unknown_length_is_waited_for_once(body: FakeFlow) -> None:
    mapped = extract.map(extract())
    assert mapped.known_length is None
    body.lengths[1] = 2
    assert len(mapped) == 2
    body.lengths.clear()
    assert [item.key for item in mapped] == ["extract-1[0]", "extract-1[1]"]
