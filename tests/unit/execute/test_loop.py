from __future__ import annotations

import contextvars
import gc
import math
import pickle
import threading
import time
import weakref
from array import array
from typing import Any, NoReturn

import numpy as np
import orjson
import pytest

from raflow import SkipTask, define, errors
from raflow.execute import (
    CallSettings,
    EachOf,
    EachPart,
    InBatch,
    InputSource,
    Known,
    ListOf,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute._course import LANES
from raflow.execute._jobs import jobs_of
from raflow.model import UNKNOWN_TRUTH, Outcome, ResultPolicy, Serializer, TaskRunKey
from tests.unit.execute.batches import (
    SETTINGS,
    FakeLoader,
    StillWatch,
    chunk,
    lines,
    loop_of,
    outcomes,
    run,
    single,
    site,
    texts,
)


def echo(x: Any) -> Any:
    return x


def add(x: Any, y: Any = 1) -> Any:
    return x + y


def type_of(x: Any) -> str:
    return type(x).__name__


def fail(x: object = None) -> NoReturn:
    raise ValueError(f"no {x}")


def fail_if(x: bool) -> str:
    if x:
        raise ValueError("as asked")
    return "fine"


def say(x: object) -> None:
    print(x)


def values(ended: Any) -> list[object]:
    return list(ended.values)


# --- columns ------------------------------------------------------------------------------------


def test_ordinary_calls_leave_columns_only() -> None:
    ended = run(chunk(3, echo, {"x": [0, 1, None, "text", 2.5, True]}))
    report = ended.report
    assert ended.values == [0, 1, None, "text", 2.5, True]
    assert (report.batch, report.told, report.results, report.own) == (7, {}, {}, {})
    assert orjson.loads(report.plain) == [0, 1, None, "text", 2.5, True]
    assert report.truths == bytes([0, 1, 0, 1, 1, 1])
    assert list(report.unstarted) == []
    assert all(b <= e for b, e in zip(report.started_at, report.ended_at, strict=True))
    assert all(e <= b for e, b in zip(report.ended_at, report.started_at[1:], strict=False))
    assert isinstance(report.cpu_seconds, array)
    assert len(report.cpu_seconds) == 6
    assert report.mean_bytes > 0
    assert report.peak_memory > 0
    assert report.place.node_id == "node"


def test_single_calls_and_chunks_share_a_batch_in_order() -> None:
    order: list[object] = []

    def note(x: object) -> None:
        order.append(x)

    run(
        single(1, note, {"x": "a"}),
        chunk(2, note, {"x": ["b", "c"]}),
        single(3, echo, {"x": 0}),
        single(4, note, {"x": "d"}),
    )
    assert order == ["a", "b", "c", "d"]


def test_other_values_are_frozen_at_once_and_described_by_themselves() -> None:
    shared: list[int] = []

    def grow(x: int) -> list[int]:
        shared.append(x)
        return shared

    ended = run(chunk(1, grow, {"x": [1, 2]}), single(2, echo, {"x": 5}))
    assert [pickle.loads(entry) for entry in values(ended)[:2]] == [[1], [1, 2]]  # type: ignore[arg-type]
    assert ended.values[2] == 5
    assert orjson.loads(ended.report.plain) == [None, None, 5]
    assert {p: info.length for p, info in ended.report.results.items()} == {0: 1, 1: 2}
    assert ended.report.truths == bytes([1, 1, 1])


def test_a_value_whose_truth_is_not_known() -> None:
    ended = run(single(1, echo, {"x": np.ones(3)}))
    assert ended.report.truths == bytes([UNKNOWN_TRUTH])


def test_what_json_would_change_is_kept_by_itself_and_the_rest_together() -> None:
    given = [1.5, math.nan, 2, math.inf, 1 << 70, "half \ud83d", "whole"]
    ended = run(chunk(1, echo, {"x": given}))
    assert orjson.loads(ended.report.plain) == [1.5, None, 2, None, None, None, "whole"]
    assert sorted(ended.report.results) == [1, 3, 4, 5]
    assert repr(ended.values) == repr(given)


def test_policies_that_differ_in_one_batch() -> None:
    unkept = CallSettings(ResultPolicy(persist=False))
    forced = CallSettings(ResultPolicy(persist=True))
    ended = run(
        single(1, echo, {"x": 1}),
        single(2, echo, {"x": 2}, settings=unkept),
        single(3, echo, {"x": 3}, settings=forced),
    )
    assert orjson.loads(ended.report.plain) == [1, None, 3]
    assert ended.report.results[1].inline is None
    assert ended.values == [1, 2, 3]


def test_a_value_that_the_policy_cannot_write_fails_alone() -> None:
    arrow = CallSettings(ResultPolicy(persist=True, serializer=Serializer.JSON))
    ended = run(single(1, echo, {"x": {1, 2}}, settings=arrow), single(2, echo, {"x": 1}))
    assert outcomes(ended) == ["failed", "completed"]
    assert "'echo': its result could not be kept" in ended.report.told[0].message
    assert ended.values[0] is None


def test_a_value_that_cannot_leave_fails_alone() -> None:
    def lock(x: object) -> Any:
        return threading.Lock() if x else 1

    ended = run(chunk(1, lock, {"x": [0, 1, 0]}))
    assert outcomes(ended) == ["completed", "failed", "completed"]
    error = ended.report.told[1].error
    assert error is not None
    assert error.type == "raflow.errors.UnserializableResultError"
    assert "'lock' returned a _thread.lock" in error.message


# --- values of their own ------------------------------------------------------------------------

BIG = 200_000


def test_a_large_value_is_an_object_of_its_own_and_ends_the_batch() -> None:
    ended = run(chunk(1, lambda x: b"x" * x, {"x": [10, BIG, 10, BIG]}))
    assert ended.report.own == {1: 1}
    assert [len(pickle.loads(entry)) for entry in ended.own] == [BIG]  # type: ignore[arg-type]
    assert ended.values[1] is None
    assert outcomes(ended) == ["completed", "completed", "unstarted", "unstarted"]
    assert ended.report.mean_bytes > BIG / 3


def test_as_many_as_there_is_room_for() -> None:
    ended = run(chunk(1, lambda x: b"x" * x, {"x": [BIG, 1, BIG, BIG, BIG]}), own_values=3)
    assert ended.report.own == {0: 1, 2: 2, 3: 3}
    assert outcomes(ended)[4] == "unstarted"


def test_a_long_text_is_large_too() -> None:
    ended = run(single(1, echo, {"x": "x" * BIG}), single(2, echo, {"x": "y" * 5000}))
    assert ended.report.own == {0: 1}
    assert outcomes(ended) == ["completed", "unstarted"]


def test_where_values_stay_in_the_process_none_is_an_object_of_its_own() -> None:
    here = site(freeze=lambda value, _: value, thaw=lambda entry: entry, size=None)
    given = np.ones(BIG)
    ended = run(chunk(1, lambda x: x, {}, size=2, shared={"x": given}), site=here)
    assert ended.own == []
    assert all(value is given for value in ended.values)
    assert ended.report.mean_bytes >= BIG * 8


def test_freezing_knows_whether_anything_follows() -> None:
    seen: list[bool] = []

    def freeze(value: object, last: bool) -> bytes:
        seen.append(last)
        return pickle.dumps(value)

    run(chunk(1, lambda x: [x], {"x": [1, 2, 3]}), site=site(freeze=freeze), own_values=2)
    assert seen == [False, False, True]


# --- what is told -------------------------------------------------------------------------------


def test_an_exception_is_told_and_the_next_call_runs() -> None:
    ended = run(chunk(5, fail_if, {"x": [False, True, False]}, start=20))
    assert outcomes(ended) == ["completed", "failed", "completed"]
    report = ended.report.told[1]
    assert (report.run, report.attempt, report.message) == (TaskRunKey(5, 21), 1, "as asked")
    assert report.error is not None
    assert "in fail_if" in report.error.traceback
    assert "raflow/execute" not in report.error.traceback
    assert report.started_at == ended.report.started_at[1]
    assert ended.report.started_at[1] <= report.ended_at
    assert orjson.loads(ended.report.plain) == ["fine", None, "fine"]
    assert ended.report.truths == bytes([1, UNKNOWN_TRUTH, 1])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SkipTask("nothing to do"), "skipped"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(3), "failed"),
        (StopIteration(), "failed"),
        (GeneratorExit(), "failed"),
    ],
)
def test_each_exception_ends_only_its_call(error: BaseException, outcome: str) -> None:
    def raises(x: object) -> None:
        if x:
            raise error

    ended = run(chunk(1, raises, {"x": [0, 1, 0]}))
    assert outcomes(ended) == ["completed", outcome, "completed"]


def test_run_if_and_names() -> None:
    ended = run(
        *(single(n, add, {"x": n - 1}, run_if=lambda x: x > 0) for n in range(4)),
        single(9, add, {"x": 2}, task_run_name="add {x}".format_map),
    )
    assert outcomes(ended) == ["skipped", "skipped", "completed", "completed", "completed"]
    assert ended.report.told[0].message == "its run_if returned a false value"
    named = ended.report.told[4]
    assert (named.label, named.outcome) == ("add 2", Outcome.COMPLETED)
    assert named.result is not None
    assert named.result.inline == b"3"
    assert ended.values[2:] == [2, 3, 3]
    assert orjson.loads(ended.report.plain) == [None, None, 2, 3, None]


def test_retry_condition_is_asked_within_the_call() -> None:
    def never(task: str, error: BaseException) -> bool:
        print(f"asked about {task}")
        return False

    ended = run(single(1, fail, retry_condition_fn=never))
    assert not ended.report.told[0].retriable
    assert texts(ended) == {0: ["asked about fail"]}


def test_every_kind_of_parameter_arrives() -> None:
    def many(first: int, /, second: int, *rest: int, option: int = 0, **others: int) -> str:
        return repr((first, second, rest, option, others))

    arguments = {"first": 1, "second": 2, "rest": (3,), "option": 5, "others": {"other": 6}}
    assert run(single(1, many, arguments)).values == ["(1, 2, (3,), 5, {'other': 6})"]


def test_what_cannot_be_unpacked_is_said_for_each_call() -> None:
    broken = single(1, echo)
    call = broken._replace(arguments=broken.arguments._replace(payload=b"not a pickle"))
    ended = run(call, single(2, echo, {"x": 1}))
    assert outcomes(ended) == ["failed", "completed"]
    assert "Task 'echo-1': its function or an argument" in ended.report.told[0].message


def test_a_function_that_cannot_be_unpacked_fails_every_call_of_its_job() -> None:
    lost = ModuleNotFoundError("No module named 'lost'")
    call = chunk(1, echo, {"x": [1, 2, 3]})
    call = call._replace(function=call.function._replace(payload=lost))
    ended = run(call, single(2, echo, {"x": 1}))
    assert outcomes(ended) == ["failed", "failed", "failed", "completed"]
    assert "'echo-1[0]'" in ended.report.told[0].message
    assert "No module named 'lost'" in ended.report.told[2].message


# --- inputs -------------------------------------------------------------------------------------

HOLE = define.Hole(0)


def loader_with(**objects: Any) -> FakeLoader:
    loader = FakeLoader()
    loader.objects = objects
    return loader


def test_inputs_of_a_single_call() -> None:
    loader = loader_with(values=[1, pickle.dumps([10, 20])], own=pickle.dumps("alone"))
    sources: dict[str, InputSource] = {
        "value": ValueRef("values", 0),
        "frozen": ValueRef("values", 1),
        "own": ValueRef("own", -1),
        "part": Part(ValueRef("values", 1), 1),
        "known": Known(None),
        "list": ListOf((ValueRef("values", 0), ValueSlice("values", 0, 2), Known(3))),
    }
    calls = [
        single(n, repr_of, {"x": HOLE}, inputs={0: source})
        for n, source in enumerate(sources.values())
    ]
    ended = run(*calls, loader=loader)
    expected = ["1", "[10, 20]", "'alone'", "20", "None", "[1, 1, [10, 20], 3]"]
    assert ended.values == expected


def test_a_hole_deep_inside_an_argument() -> None:
    arguments = {"x": {"deep": [HOLE]}, "y": define.Hole(1)}
    inputs = {0: Known(1), 1: Known(2)}
    assert run(single(1, lambda x, y: repr((x, y)), arguments, inputs=inputs)).values == [
        "({'deep': [1]}, 2)"
    ]


def test_each_item_gets_its_own_value() -> None:
    loader = loader_with(a=[1, pickle.dumps([2]), 3], b=pickle.dumps("own"), xs=list(range(100)))
    each = EachOf((ValueSlice("a", 1, 3), ValueRef("b", -1), Known("known")))
    ended = run(
        chunk(1, repr_of, {}, size=4, shared={"x": HOLE}, inputs={0: each}),
        chunk(2, repr_of, {}, size=3, shared={"x": HOLE}, inputs={0: part_of("xs", 50)}),
        chunk(3, pair, {"y": "ab"}, shared={"x": HOLE}, inputs={0: part_of("xs", 7)}),
        loader=loader,
        site=site(thaw=lambda entry: pickle.loads(entry) if isinstance(entry, bytes) else entry),
    )
    assert ended.values == [
        *("[2]", "3", "'own'", "'known'"),
        *("50", "51", "52"),
        *("7a", "8b"),
    ]


def repr_of(x: object) -> str:
    return repr(x)


def pair(x: object, y: object) -> str:
    return f"{x}{y}"


def part_of(handle: str, start: int) -> EachPart:
    return EachPart(ValueRef(handle, -1), start)


def test_futures_in_a_column_and_beside_it() -> None:
    columns = {"x": [define.Hole(0), 5, [define.Hole(1)]]}
    inputs = {0: Known("zero"), 1: Known("one"), 2: Known("shared")}
    ended = run(chunk(1, pair, columns, shared={"y": [define.Hole(2)]}, inputs=inputs))
    assert ended.values == ["zero['shared']", "5['shared']", "['one']['shared']"]


def test_an_input_that_cannot_be_unpacked_fails_its_item_only() -> None:
    loader = loader_with(a=[1, b"not a pickle", 3])
    ended = run(
        chunk(
            1,
            echo,
            {},
            size=3,
            shared={"x": HOLE},
            inputs={0: EachOf((ValueSlice("a", 0, 3),))},
        ),
        loader=loader,
    )
    assert outcomes(ended) == ["completed", "failed", "completed"]
    assert "'echo-1[1]'" in ended.report.told[1].message


def test_a_list_is_unpacked_once_unless_its_items_can_change() -> None:
    unpacked: list[bytes] = []

    def thaw(entry: bytes) -> object:
        unpacked.append(entry)
        return pickle.loads(entry)

    loader = loader_with(a=[pickle.dumps([1, 2, 3]), pickle.dumps([[1], [2], [3]])])

    def grow(x: Any) -> str:
        if isinstance(x, list):
            x.append(0)
        return repr(x)

    def parts(ref: ValueRef, *items: int) -> Any:
        return run(
            *(single(n, grow, {"x": HOLE}, inputs={0: Part(ref, n)}) for n in items),
            loader=loader,
            site=site(thaw=thaw),
        ).values

    assert parts(ValueRef("a", 0), 0, 1, 1, 2) == ["1", "2", "2", "3"]
    assert len(unpacked) == 1
    assert parts(ValueRef("a", 1), 0, 1, 1) == ["[1, 0]", "[2, 0]", "[2, 0]"]
    assert len(unpacked) == 3


# --- values of earlier calls of the batch -------------------------------------------------------


def test_a_chain_runs_in_one_batch() -> None:
    calls = [single(0, add, {"x": 1})]
    calls += [single(n, add, {"x": HOLE}, inputs={0: InBatch(n - 1)}) for n in range(1, 5)]
    ended = run(*calls)
    assert ended.values == [2, 3, 4, 5, 6]


def test_what_a_consumer_does_to_its_input_does_not_reach_the_value() -> None:
    def grow(x: list[int]) -> list[int]:
        x.append(9)
        return x

    inputs = {0: InBatch(0)}
    ended = run(
        single(0, echo, {"x": [1]}),
        single(1, grow, {"x": HOLE}, inputs=inputs),
        single(2, grow, {"x": HOLE}, inputs=inputs),
    )
    assert [pickle.loads(entry) for entry in values(ended)] == [[1], [1, 9], [1, 9]]  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [fail, lambda: (_ for _ in ()).throw(SkipTask("no"))])
def test_calls_whose_source_did_not_complete_are_handed_back(how: Any) -> None:
    ended = run(
        single(0, how),
        single(1, echo, {"x": HOLE}, inputs={0: InBatch(0)}),
        single(2, echo, {"x": HOLE}, inputs={0: InBatch(1)}),
        chunk(3, pair, {"y": "ab"}, shared={"x": HOLE}, inputs={0: InBatch(0)}),
        single(4, echo, {"x": 4}),
    )
    assert outcomes(ended)[1:] == ["unstarted"] * 4 + ["completed"]
    assert list(ended.report.unstarted) == [1, 2, 3, 4]
    assert ended.report.started_at[1:5] == array("d", [0.0] * 4)
    assert ended.values == [None] * 5 + [4]


def test_an_own_value_feeds_a_call_of_the_batch() -> None:
    ended = run(
        single(0, echo, {"x": b"x" * BIG}),
        single(1, len_of, {"x": HOLE}, inputs={0: InBatch(0)}),
        own_values=2,
    )
    assert ended.values == [None, BIG]


def len_of(x: bytes) -> int:
    return len(x)


# --- budget and cancelling ----------------------------------------------------------------------


def test_after_the_budget_nothing_is_started() -> None:
    ended = run(chunk(1, nap, {"x": [0.03] * 50}), budget=0.05)
    done = outcomes(ended).count("completed")
    assert 1 <= done <= 3
    assert list(ended.report.unstarted) == list(range(done, 50))


def nap(x: float) -> None:
    time.sleep(x)


def test_the_first_call_runs_however_small_the_budget() -> None:
    assert outcomes(run(*(single(n, nap, {"x": 0.001}) for n in range(3)), budget=0.0)) == [
        "completed",
        "unstarted",
        "unstarted",
    ]


def test_a_cancelled_batch_ends_all_its_calls() -> None:
    loop = loop_of(single(0, echo, {"x": 0}), chunk(1, echo, {"x": [1, 2]}))
    loop.cancel()
    assert loop.run(StillWatch())
    ended = loop.end()
    assert outcomes(ended) == ["cancelled"] * 3
    assert ended.report.told[2].message == "it was cancelled before it started"
    assert ended.report.told[2].run == TaskRunKey(1, 1)


def test_what_fires_between_calls_ends_the_next_one() -> None:
    watch = StillWatch()

    def fire(x: int) -> None:
        if x == 1:
            watch.fired = errors.TaskInterrupted()

    ended = run(chunk(1, fire, {"x": [0, 1, 2, 3]}), watch=watch)
    assert outcomes(ended) == ["completed", "completed", "cancelled", "cancelled"]
    assert ended.report.told[2].message == "it was interrupted while it ran"


def test_a_time_limit_is_begun_and_ended_around_each_call() -> None:
    watch = StillWatch()
    limited = SETTINGS._replace(timeout_seconds=5.0)

    def late(x: int) -> int:
        if x == 1:
            watch.fired = errors.TimeLimitReached()
        if x == 2:
            watch.fired = errors.TimeLimitReached()
            raise watch.fired
        return x

    ended = run(chunk(1, late, {"x": [0, 1, 2, 3]}, settings=limited), watch=watch)
    assert outcomes(ended) == ["completed", "timed_out", "timed_out", "completed"]
    assert "timeout_seconds=5" in ended.report.told[1].message
    begun_and_ended = [(5.0, 0), (None, 0), (5.0, 1), (None, 1)]
    assert watch.limits[:2] == begun_and_ended[:2], "loading what the calls share is limited too"
    assert watch.limits[2:6] == begun_and_ended
    assert watch.limits[-1] == (None, -1)
    assert ended.values == [0, None, None, 3]


# --- output -------------------------------------------------------------------------------------


def test_only_calls_that_write_are_told_and_logs_never_mix() -> None:
    def talk(x: int) -> int:
        if x % 3 == 0:
            print(f"from {x}")
        return x

    ended = run(chunk(1, talk, {"x": list(range(10))}), single(2, say, {"x": "single"}))
    assert texts(ended) == {
        0: ["from 0"],
        3: ["from 3"],
        6: ["from 6"],
        9: ["from 9"],
        10: ["single"],
    }
    report = ended.report.told[3]
    assert report.outcome is Outcome.COMPLETED
    assert report.result is not None
    assert (report.result.inline, ended.values[3], ended.report.truths[3]) == (b"3", 3, 1)
    assert all(report.started_at <= line.at <= report.ended_at for line in lines(report))


def test_threads_write_for_the_call_that_runs() -> None:
    def start_thread(x: object) -> None:
        thread = threading.Thread(target=print, args=(x,))
        thread.start()
        thread.join()

    assert texts(run(chunk(1, start_thread, {"x": ["a", "b"]}))) == {0: ["a"], 1: ["b"]}


def test_a_thread_that_outlives_its_call_does_not_write_for_the_next() -> None:
    go, done = threading.Event(), threading.Event()

    def leave_thread() -> None:
        print("mine")

        def later() -> None:
            go.wait(100)
            print("late")
            done.set()

        threading.Thread(target=contextvars.copy_context().run, args=(later,)).start()

    def wait_for_it() -> None:
        go.set()
        assert done.wait(100)
        print("other")

    ended = run(single(1, leave_thread), single(2, wait_for_it))
    assert texts(ended) == {0: ["mine"], 1: ["other"]}


def test_log_prints_off_keeps_log_records_only() -> None:
    silent = SETTINGS._replace(log_prints=False)
    assert run(single(1, say, {"x": "hello"}, settings=silent)).report.told == {}


# --- context ------------------------------------------------------------------------------------


def test_each_call_knows_its_run() -> None:
    seen: list[define.TaskRunContext] = []

    def look(x: object) -> None:
        context = define.get_run_context()
        seen.append(context)

    run(chunk(4, look, {"x": [0, 0]}, start=10), single(5, look, {"x": 0}, attempt=2))
    assert [(c.task, c.label, c.run, c.attempt) for c in seen] == [
        ("look", "look-4[10]", (4, 10), 1),
        ("look", "look-4[11]", (4, 11), 1),
        ("look", "look-5", (5, -1), 2),
    ]
    assert (seen[0].flow, seen[0].flow_run_id, seen[0].parameters) == ("testing", "run-1", {})
    copied = pickle.loads(pickle.dumps(seen[2]))
    assert type(copied) is define.TaskRunContext
    assert copied.label == "look-5"
    with pytest.raises(AttributeError, match="no attribute 'color'"):
        seen[0].color  # type: ignore[attr-defined]  # noqa: B018
    assert define.active_task.get() is None


def test_a_name_is_the_label_too() -> None:
    seen: list[str] = []

    def look(x: int) -> None:
        seen.append(define.get_run_context().label)

    run(single(1, look, {"x": 3}, task_run_name="look at {x}".format_map))
    assert seen == ["look at 3"]


# --- use of resources ---------------------------------------------------------------------------


def test_cpu_time_of_long_calls_is_their_own() -> None:
    def burn(x: float) -> None:
        end = time.process_time() + x
        while time.process_time() < end:
            pass

    ended = run(
        single(1, nap, {"x": 0.05}), single(2, burn, {"x": 0.05}), single(3, echo, {"x": 1})
    )
    asleep, busy, short = ended.report.cpu_seconds
    assert 0.045 < busy < 2
    assert asleep < busy / 2
    assert short < busy / 2


def test_the_cell_shows_what_runs() -> None:
    cell = [-1] * (LANES + 1)
    seen: list[int] = []

    def look(x: object) -> None:
        seen.append(cell[0])

    run(chunk(1, look, {"x": [0, 0]}), single(2, look, {"x": 0}), cell=cell)
    assert seen == [0, 1, 2]


# --- jobs ---------------------------------------------------------------------------------------


def test_calls_are_put_together_where_they_share_function_and_settings() -> None:
    other = SETTINGS._replace(log_prints=False)
    calls = [
        single(0, echo),
        single(1, echo, attempt=3),
        single(2, add, inputs={0: Known(1)}),
        chunk(3, echo, {"x": [1, 2]}, start=5),
        single(4, add),
        single(5, add, settings=other),
    ]
    jobs = jobs_of(calls)
    assert [(job.size, job.label(0), job.run(0), job.attempt(0)) for job in jobs] == [
        (2, "echo-0", (0, -1), 1),
        (1, "add-2", (2, -1), 1),
        (2, "echo-3[5]", (3, 5), 1),
        (1, "add-4", (4, -1), 1),
        (1, "add-5", (5, -1), 1),
    ]
    assert jobs[0].attempt(1) == 3


def test_inputs_go_with_the_batch_and_do_not_wait_for_the_garbage_collector() -> None:
    class Large:
        """Stands for an array in the object store."""

    loader = FakeLoader()
    large = loader.objects["values"] = Large()
    gone = weakref.ref(large)
    calls = [
        single(0, type_of, {"x": HOLE}, inputs={0: ValueRef("values", -1)}),
        single(1, echo, {"x": HOLE}, inputs={0: InBatch(0)}),
    ]
    gc.disable()
    try:
        loop = loop_of(*calls, loader=loader, site=site(thaw=lambda entry: entry))
        assert loop.run(StillWatch())
        loop.end()
        del loop, large, calls, loader
        assert gone() is None
    finally:
        gc.enable()
