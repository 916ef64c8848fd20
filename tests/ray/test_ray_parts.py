"""The parts of the Ray backend that need no Ray to run."""

from __future__ import annotations

import queue
import socket
import sys
import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray.cloudpickle as ray_pickle
from ray import exceptions

from raflow import errors
from raflow.define import Hole
from raflow.execute import (
    BatchSpec,
    Call,
    CallSettings,
    CallsReturned,
    EachOf,
    EachPart,
    FunctionHandle,
    InBatch,
    InputSource,
    Known,
    ListOf,
    Packed,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute._jobs import Items, Singles
from raflow.execute.ray._arguments import pack_arguments, pack_items
from raflow.execute.ray._leases import Leases
from raflow.execute.ray._losses import classify, timed_out
from raflow.execute.ray._mail import Line, Postbox, answer, call
from raflow.execute.ray._mailroom import Mailroom, Word
from raflow.execute.ray._options import options_of
from raflow.execute.ray._payload import freeze, freeze_copy, loads, size_of, thaw
from raflow.execute.ray._report import decode_report, encode_report
from raflow.execute.ray._shipping import Shipping
from raflow.execute.ray._wire import Lifted, Packer, Shelf, read_batch
from raflow.model import (
    BatchReport,
    CallReport,
    Chunk,
    ErrorInfo,
    Outcome,
    Place,
    Resources,
    ResultInfo,
    ResultPolicy,
    TaskRunKey,
)
from tests.waiting import PATIENCE_SECONDS

# --- options ------------------------------------------------------------------------------------


def test_only_what_is_asked_for_becomes_an_option() -> None:
    assert options_of(Resources()) == {"num_cpus": 1.0}
    assert options_of(Resources(num_cpus=0)) == {"num_cpus": 0}


def test_every_hint_becomes_rays_option() -> None:
    resources = Resources.of(
        num_cpus=2,
        num_gpus=0.5,
        memory="1GiB",
        resources={"ink": 1},
        accelerator_type="A100",
        label_selector={"zone": "a"},
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": {"A": "b"}},
    )
    assert options_of(resources) == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "memory": 1 << 30,
        "resources": {"ink": 1.0},
        "accelerator_type": "A100",
        "label_selector": {"zone": "a"},
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": {"A": "b"}},
    }


# --- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (exceptions.WorkerCrashedError(), Outcome.CRASHED),
        (exceptions.OutOfMemoryError("much too much"), Outcome.OUT_OF_MEMORY),
        (exceptions.NodeDiedError("gone"), Outcome.LOST),
        (exceptions.LocalRayletDiedError(), Outcome.LOST),
        (exceptions.ObjectLostError("ab" * 28, None, ""), Outcome.LOST),
        (exceptions.OwnerDiedError("ab" * 28, None, ""), Outcome.LOST),
        (exceptions.TaskCancelledError(), Outcome.CANCELLED),
        (exceptions.RuntimeEnvSetupError("no pip"), Outcome.FAILED),
        (exceptions.TaskUnschedulableError("nowhere"), Outcome.FAILED),
        (exceptions.RaySystemError("odd"), Outcome.FAILED),
    ],
)
def test_each_error_of_rays_has_an_outcome(error: BaseException, outcome: Outcome) -> None:
    loss = classify(error)
    assert loss.outcome is outcome
    assert loss.message


def test_an_error_of_a_dependency_counts_as_what_it_is() -> None:
    inner = exceptions.OwnerDiedError("ab" * 28, None, "")
    outer = exceptions.RayTaskError("run_batch", "text", inner)
    assert classify(outer).outcome is Outcome.LOST


def test_last_words_say_where_code_hung() -> None:
    words = """Timeout (0:00:03)!
Thread 0x01 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 1 in wait

Thread 0x02 (most recent call first):
  File "/home/me/flow.py", line 12 in slow
  File "/home/me/flow.py", line 20 in task
  File "/usr/lib/raflow", line 99 in raflow_batch_3_14
"""
    loss = timed_out(words)
    assert loss.outcome is Outcome.TIMED_OUT
    assert "in slow (/home/me/flow.py:12)" in loss.message


# --- values and wire ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", b"raw", [1, {"a": (2,)}], {1, 2}])
def test_plain_values_come_back(value: object) -> None:
    assert thaw(freeze(value)) == value
    assert thaw(freeze_copy(value)) == value


def test_large_arrays_stay_beside_the_pickle_and_small_ones_are_copied() -> None:
    import numpy as np

    large = freeze(np.ones(1_000_000))
    assert isinstance(large, tuple)
    assert len(large[0]) < 1000
    assert size_of(large) > 8_000_000
    small = np.ones(10)
    copied = freeze_copy({"x": small})
    small[:] = 2
    assert thaw(copied)["x"].sum() == 10


def test_a_batch_is_packed_with_each_object_once() -> None:
    function = FunctionHandle("k", b"code")
    source, piece = ValueRef("object", 2), ValueSlice("object", 3, 5)
    settings = CallSettings(result=ResultPolicy())
    inputs: Mapping[int, InputSource] = {
        0: source,
        1: Part(source, 5),
        2: ListOf((source, piece, Known(7))),
        3: InBatch(0),
    }
    one = Call(Chunk(1), function, Packed({"x": 1}), None, {}, "one", settings)
    two = Call(Chunk(2), function, Packed("stored"), None, inputs, "two", settings)
    each: Mapping[int, InputSource] = {
        0: EachOf((piece, Known([8]))),
        1: EachPart(ValueRef("another", -1), 4),
    }
    items = Call(
        Chunk(3, 4, 6, 2), function, Packed(b"shared"), Packed(b"own"), each, "map", settings
    )
    spec = BatchSpec(id=4, calls=(one, two, items), resources=Resources(), budget=0.5)
    head, *others = Packer().pack(9, spec, ("env", "environment in the store"))
    assert isinstance(head, bytes)
    wire = read_batch(head)
    assert others == ["stored", "object", "another", ["environment in the store"]]
    assert (wire.session, wire.batch, wire.environment, wire.has_shelf) == (9, 4, Shelf(0), True)
    assert (wire.budget, wire.own_values) == (0.5, 1)
    assert wire.functions == {"k": b"code"}
    singles, chunk = wire.jobs
    assert isinstance(singles, Singles)
    assert isinstance(chunk, Items)
    calls = singles.calls
    assert (singles.first, singles.size) == (0, 2)
    assert (calls.nodes, calls.attempts, calls.keys) == ([1, 2], [1, 1], ["one", "two"])
    assert calls.arguments == [{"x": 1}, Lifted(0)]
    assert calls.inputs == {
        1: {
            0: ValueRef(1, 2),
            1: Part(ValueRef(1, 2), 5),
            2: ListOf((ValueRef(1, 2), ValueSlice(1, 3, 5), Known(7))),
            3: InBatch(0),
        }
    }
    assert (chunk.chunk, chunk.arguments, chunk.items) == (Chunk(3, 4, 6, 2), b"shared", b"own")
    assert chunk.inputs == {
        0: EachOf((ValueSlice(1, 3, 5), Known(freeze([8])))),
        1: EachPart(ValueRef(2, -1), 4),
    }


def test_a_report_comes_back_whole() -> None:
    skipped = CallReport(
        run=TaskRunKey(1, 2), attempt=1, outcome=Outcome.SKIPPED, started_at=1.0, ended_at=2.0
    )
    full = CallReport(
        run=TaskRunKey(3),
        attempt=2,
        outcome=Outcome.COMPLETED,
        started_at=1.0,
        ended_at=2.0,
        cpu_seconds=0.5,
        error=ErrorInfo(type="T", message="m", pickled=b"p"),
        result=ResultInfo(type="builtins.int", size=28, preview="3", truth=True, inline=b"3"),
        logs=b"log",
    )
    times = array("d", [1.0, 2.0, 3.0, 0.0])
    report = BatchReport(
        batch=7,
        place=Place(12, "host", "node"),
        started_at=times,
        ended_at=times,
        cpu_seconds=times,
        unstarted=(3,),
        told={0: skipped, 1: full},
        plain=b"[null,null,5,null]",
        results={2: ResultInfo(type="builtins.list", size=3, preview="[]")},
        truths=bytes([0, 1, 1, 2]),
        own={1: 1},
    )
    assert decode_report(encode_report(report)) == report


# --- arguments ----------------------------------------------------------------------------------


def no_ray(what: str) -> None:
    raise AssertionError(f"nothing is stored: {what}")


def test_small_plain_arguments_travel_as_they_are() -> None:
    arguments = {"a": None, "b": True, "c": 3, "d": 2.5, "e": "text", "f": b"raw", "g": Hole(0)}
    packed = pack_arguments("task", arguments, no_ray)
    assert packed.payload == arguments


@pytest.mark.parametrize("value", [[1, 2], {"x": 1}, (1,), "x" * 2000, b"x" * 2000])
def test_other_arguments_are_pickled_as_they_are_now(value: Any) -> None:
    packed = pack_arguments("task", {"a": 1, "b": value}, no_ray)
    assert isinstance(packed.payload, bytes)
    assert loads(packed.payload) == {"a": 1, "b": value}


def test_columns_of_items_travel_as_one_pickle() -> None:
    columns = {"x": range(5, 10**9), "y": [1, 2.5, None], "z": (Hole(0), "text", b"raw")}
    packed = pack_items("task", columns, no_ray)
    assert isinstance(packed.payload, bytes)
    assert len(packed.payload) < 200
    assert loads(packed.payload) == columns


def test_items_of_any_kind_travel() -> None:
    columns = {"x": [[1], {2}, Known(3)], "y": range(3)}
    packed = pack_items("task", columns, no_ray)
    assert isinstance(packed.payload, bytes)
    assert loads(packed.payload) == columns


def test_an_item_that_cannot_travel_is_named() -> None:
    columns = {"x": range(3), "y": ["fine", {"deep": threading.Lock()}, "fine"]}
    with pytest.raises(errors.UnserializableArgumentError) as caught:
        pack_items("add", columns, no_ray)
    for word in ("'add'", "'y'", "builtins.dict", "lock"):
        assert word in str(caught.value)
    assert caught.value.parameter == "y"


# --- modules ------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file = tmp_path / "shipped_module.py"
    file.write_text("")
    made = ModuleType("shipped_module")
    made.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "shipped_module", made)
    return made


def is_shipped(module: ModuleType) -> bool:
    return module.__name__ in ray_pickle.list_registry_pickle_by_value()


def test_a_module_that_cannot_be_imported_travels(module: ModuleType) -> None:
    Shipping((), same_machine=True).prepare("shipped_module")
    assert is_shipped(module)
    ray_pickle.unregister_pickle_by_value(module)


def test_a_module_that_can_be_imported_stays_on_this_machine(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    Shipping((str(tmp_path),), same_machine=True).prepare("shipped_module")
    assert not is_shipped(module)
    Shipping((str(tmp_path),), same_machine=False).prepare("another")
    assert is_shipped(module)
    ray_pickle.unregister_pickle_by_value(module)


def test_installed_packages_never_travel() -> None:
    before = set(ray_pickle.list_registry_pickle_by_value())
    Shipping((sys.prefix, "/"), same_machine=False).prepare("json")
    travelling = set(ray_pickle.list_registry_pickle_by_value()) - before
    assert not {name.partition(".")[0] for name in travelling} & {"json", "ray", "pytest", "numpy"}
    for name in travelling:
        ray_pickle.unregister_pickle_by_value(sys.modules[name])


# --- mail ---------------------------------------------------------------------------------------


def exchange(key: bytes) -> tuple[Any, Any]:
    """Open a line with a key; returns what both ends got: a line, or an error."""
    got: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            try:
                got.append(answer(server.accept()[0], b"right"))
            except OSError as error:
                got.append(error)

        driver = threading.Thread(target=take)
        driver.start()
        try:
            worker: Any = call(Postbox("127.0.0.1", server.getsockname()[1], key))
        except OSError as error:
            worker = error
        driver.join(PATIENCE_SECONDS)
    return got[0], worker


def test_messages_pass_both_ways_whole() -> None:
    driver, worker = exchange(b"right")
    assert worker.send({"started": [1, "ü"]})
    assert worker.send({"more": 2})
    received: list[object] = []
    while len(received) < 2:
        received += driver.receive()
    assert received == [{"started": [1, "ü"]}, {"more": 2}]
    driver.send({"cancel": [1, 2]})
    assert worker.receive() == [{"cancel": [1, 2]}]
    driver.close()
    assert worker.receive() is None
    worker.close()


def test_a_wrong_key_is_refused_on_both_sides() -> None:
    driver, worker = exchange(b"wrong")
    assert isinstance(driver, OSError)
    assert isinstance(worker, OSError)


def test_last_words_are_heard() -> None:
    driver, worker = exchange(b"right")
    worker._sock.sendall(b'Timeout!\n  File "x.py", line 3 in raflow_batch_12_345\n')
    worker.close()
    while driver.receive() is not None:
        pass
    assert driver.last_words()[0] == (12, 345)
    driver.close()


def test_what_is_handed_back_is_heard_whatever_others_say() -> None:
    heard: queue.SimpleQueue[tuple[int, CallsReturned]] = queue.SimpleQueue()

    def refuse(_word: Word, _line: Line) -> None:
        raise ValueError("nobody knows that Ray task")

    room = Mailroom(
        "127.0.0.1",
        started=lambda _session, _event: True,
        returned=lambda session, event: heard.put((session, event)),
        slots=lambda _session, _event: True,
        leases=Leases(15.0),
        tenure=refuse,
    )
    odd, worker = call(room.postbox), call(room.postbox)
    odd.send({"here": [3, 14, None]})
    assert odd.receive() is None, "it is hung up"
    worker.send({"returned": [3, 14, [[2, 5], [9, 10]]]})
    assert heard.get(timeout=PATIENCE_SECONDS) == (3, CallsReturned(14, [2, 3, 4, 9]))
    for line in (odd, worker):
        line.close()
    room.close()
