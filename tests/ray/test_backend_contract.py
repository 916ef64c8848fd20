"""What every backend promises; each test runs on both."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from raflow.execute import (
    Backend,
    BatchEnded,
    EachOf,
    EachPart,
    InBatch,
    Known,
    ListOf,
    Part,
    ValueSlice,
)
from raflow.model import Outcome, Resources, ResultPolicy, Serializer, shortfall
from tests.ray import user_tasks as user
from tests.ray.harness import Run, lines, task_of
from tests.waiting import LIMITS, wait_for

TWO_CPUS = Resources(num_cpus=2)


# --- calls and inputs ---------------------------------------------------------------------------


def test_a_value_is_fetched(run: Run) -> None:
    assert run.session.fetch(run.value(user.add, {"x": 2, "y": 3})) == 5


def test_defaults_are_left_to_the_function(run: Run) -> None:
    assert run.session.fetch(run.value(user.add, {"x": 2})) == 3


def test_every_kind_of_parameter_arrives(run: Run) -> None:
    arguments = {"first": 1, "second": 2, "rest": (3, 4), "option": 5, "others": {"other": 6}}
    assert run.session.fetch(run.value(user.many_ways, arguments)) == (
        1,
        2,
        (3, 4),
        5,
        {"other": 6},
    )


def test_items_of_a_map_have_arguments_of_their_own_and_share_others(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"y": 10}, items={"x": range(1000)}))
    reports = run.reports(batch)
    assert [report.run.map_index for report in reports] == list(range(1000))
    assert [run.fetch(batch, position) for position in (0, 7, 999)] == [10, 17, 1009]


def test_the_four_kinds_of_input(run: Run) -> None:
    five = run.value(user.add, {"x": 4})
    listed = run.value(user.numbers, {"length": 10})
    inputs = {
        "value": run.value(user.echo, inputs={"value": five}),
        "part": run.value(user.echo, inputs={"value": Part(listed, 7)}),
        "known": run.value(user.echo, inputs={"value": Known("told")}),
        "list": run.value(user.echo, inputs={"value": ListOf((five, Known(None), five))}),
    }
    assert {kind: run.session.fetch(value) for kind, value in inputs.items()} == {
        "value": 5,
        "part": 7,
        "known": "told",
        "list": [5, None, 5],
    }


def test_known_may_be_an_exception(run: Run) -> None:
    known = Known(user.NeedsTwoArguments("one", "two"))
    got = run.session.fetch(run.value(user.echo, inputs={"value": Known(ValueError("why"))}))
    assert repr(got) == "ValueError('why')"
    assert isinstance(known.value, user.NeedsTwoArguments)


def test_calls_of_a_batch_run_in_order_and_report_in_order(run: Run) -> None:
    calls = [run.call(user.interval, {"seconds": 0.01}) for _ in range(5)]
    batch = run.submit(*calls)
    assert [report.outcome for report in run.reports(batch)] == ["completed"] * 5
    spans: list[Any] = [run.fetch(batch, position) for position in range(5)]
    assert spans == sorted(spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_failing_call_does_not_end_its_batch(run: Run) -> None:
    good, bad = run.call(user.add, {"x": 1}), run.call(user.fail, {"kind": "ordinary"})
    batch = run.submit(good, bad, run.call(user.add, {"x": 5}))
    assert [r.outcome for r in run.reports(batch)] == ["completed", "failed", "completed"]
    assert run.fetch(batch, 2) == 6


def test_each_item_may_have_a_value_of_its_own(run: Run) -> None:
    first = run.submit(run.call(user.add, items={"x": range(10)}))
    lone, listed = run.value(user.echo, {"value": "lone"}), run.value(user.numbers, {"length": 9})
    handle = run.finish(first).values[0]
    each = EachOf((ValueSlice(handle, 2, 5), lone, Known(None), ValueSlice(handle, 9, 10)))
    second = run.submit(
        run.call(user.echo, inputs={"value": each}, length=6),
        run.call(user.echo, inputs={"value": EachPart(listed, 4)}, length=3),
    )
    got = [run.fetch(second, position) for position in range(9)]
    assert got == [3, 4, 5, "lone", None, 10, 4, 5, 6]


def test_the_values_of_a_map_are_one_list(run: Run) -> None:
    batch = run.submit(run.call(user.add, items={"x": range(10)}))
    handle = run.finish(batch).values[0]
    whole = ListOf((ValueSlice(handle, 0, 3), Known("known"), run.ref(batch, 9)))
    assert run.session.fetch(whole) == [1, 2, 3, "known", 10]
    assert run.session.fetch(run.value(user.echo, inputs={"value": whole})) == [
        1,
        2,
        3,
        "known",
        10,
    ]


def test_what_the_driver_has_and_items_of_lists_are_fetched_too(run: Run) -> None:
    assert run.session.fetch(Known("told")) == "told"
    assert run.session.fetch(Part(run.value(user.numbers, {"length": 9}), 4)) == 4


def test_a_chain_runs_in_one_batch(run: Run) -> None:
    first = run.call(user.add, {"x": 1})
    rest = [run.call(user.add, inputs={"x": InBatch(position)}) for position in range(20)]
    batch = run.submit(first, *rest)
    assert [report.outcome for report in run.reports(batch)] == ["completed"] * 21
    assert run.fetch(batch, 20) == 22


def test_what_follows_a_failed_call_of_its_batch_is_handed_back(run: Run) -> None:
    batch = run.submit(
        run.call(user.fail, {"kind": "ordinary"}),
        run.call(user.echo, inputs={"value": InBatch(0)}),
        run.call(user.echo, {"value": 3}),
    )
    report = run.finish(batch).report
    assert list(report.unstarted) == [1]
    assert list(report.told) == [0]
    assert run.fetch(batch, 2) == 3


# --- budgets ------------------------------------------------------------------------------------


def test_what_is_over_the_budget_is_handed_back(run: Run) -> None:
    call = run.call(user.interval, items={"seconds": [0.01] * 50})
    report = run.finish(run.submit(call, budget=0.05)).report
    started = 50 - len(report.unstarted)
    assert 1 <= started <= 10
    assert list(report.unstarted) == list(range(started, 50))
    assert all(report.started_at[position] == 0.0 for position in report.unstarted)


def test_a_long_call_does_not_hold_up_its_neighbours(run: Run, tmp_path: Path) -> None:
    for budget in LIMITS:  # until the first call has begun within it
        go = tmp_path / f"go {budget}"
        batch = run.submit(
            run.call(user.hold, {"path": str(go)}),
            run.call(user.add, {"x": 1}),
            run.call(user.add, items={"x": range(1000)}),
            budget=budget,
        )
        returned = list(run.return_of(batch).positions)
        go.touch()
        report = run.finish(batch).report
        assert list(report.unstarted) == returned == list(range(returned[0], 1002))
        if returned[0] > 0:
            break
    assert returned[0] == 1
    assert run.fetch(batch, 0) == "held"


def test_the_first_call_runs_whatever_the_budget(run: Run) -> None:
    batch = run.submit(run.call(user.nap, {"seconds": 0.1}), budget=0.0)
    assert run.fetch(batch) == "rested"


def test_ten_thousand_items_in_one_batch(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"y": 1}, items={"x": range(10_000)}))
    end = run.finish(batch)
    assert not end.report.told
    assert sum(json.loads(end.report.plain)) == sum(range(1, 10_001))
    values: Any = run.session.fetch(ListOf((ValueSlice(end.values[0], 0, 10_000),)))
    assert values == list(range(1, 10_001))


def test_async_calls_that_overlap_do_not_hold_up_those_behind_them(
    run: Run, tmp_path: Path
) -> None:
    for budget in LIMITS:  # until as many as may overlap have begun within it
        go = tmp_path / f"go {budget}"
        call = run.call(user.hold_async, items={"path": [str(go)] * 10}, concurrency=4)
        batch = run.submit(call, budget=budget)
        returned = list(run.return_of(batch).positions)
        go.touch()
        report = run.finish(batch).report
        assert list(report.unstarted) == returned == list(range(returned[0], 10))
        assert not report.told
        if returned[0] >= 4:
            break
    assert returned[0] == 4


# --- async calls --------------------------------------------------------------------------------


def test_async_items_overlap_up_to_their_width(run: Run) -> None:
    call = run.call(user.crowd, items={"wanted": [10] * 10 + [0] * 10}, concurrency=10)
    batch = run.submit(call)
    assert [report.outcome for report in run.reports(batch)] == ["completed"] * 20
    assert {run.fetch(batch, position) for position in range(10)} == {10}
    assert max(run.fetch(batch, position) for position in range(10, 20)) <= 10


def test_an_async_function_is_run_to_its_end(run: Run) -> None:
    report = run.report(user.add_later, {"x": 1, "y": 2})
    assert report.outcome is Outcome.COMPLETED
    assert [line.text for line in lines(report)] == ["added"]


def test_the_result_is_described_and_kept(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"x": 1}), run.call(user.echo, {"value": [1, 2]}))
    report = run.finish(batch).report
    assert json.loads(report.plain) == [2, None]
    assert list(report.results) == [1]
    assert (report.results[1].type, report.results[1].length) == ("builtins.list", 2)
    assert report.results[1].inline == b"[1,2]"


def test_task_code_knows_its_run(run: Run) -> None:
    call = run.call(user.context, attempt=2)
    seen: Any = run.fetch(run.submit(call))
    assert (seen.flow, seen.flow_run_id, seen.flow_run_name) == ("testing", run.id, "brave-test")
    assert (seen.task, seen.label, seen.attempt) == ("context", "context", 2)
    assert seen.run == call.chunk.key(0)


# --- run_if, skipping, names --------------------------------------------------------------------


def test_run_if_decides_with_the_calls_arguments(run: Run) -> None:
    guarded = task_of(user.add, run_if=user.positive)
    assert run.report(guarded, {"x": 3}).outcome is Outcome.COMPLETED
    skipped = run.report(guarded, {"x": -3})
    assert (skipped.outcome, skipped.error) == (Outcome.SKIPPED, None)
    assert "run_if" in skipped.message


def test_a_failing_run_if_fails_the_run(run: Run) -> None:
    report = run.report(task_of(user.add, run_if=user.positive), {"x": "text"})
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "builtins.TypeError"


def test_skip_task_skips_with_its_message(run: Run) -> None:
    report = run.report(user.skip, {"why": "nothing to do"})
    assert (report.outcome, report.message) == (Outcome.SKIPPED, "nothing to do")


def test_a_run_is_named_from_its_arguments(run: Run) -> None:
    named = task_of(user.add, task_run_name="add {x}".format_map)
    assert run.report(named, {"x": 7}).label == "add 7"


def test_a_name_that_cannot_be_made_is_logged_and_harmless(run: Run) -> None:
    report = run.report(task_of(user.add, task_run_name="{nobody}".format_map), {"x": 7})
    assert (report.outcome, report.label) == (Outcome.COMPLETED, "")
    assert "task_run_name" in lines(report)[0].text


# --- logs ---------------------------------------------------------------------------------------


def test_prints_and_log_records_are_kept_with_time_and_level(run: Run) -> None:
    report = run.report(user.say, {"text": "hello"})
    assert [line[1:] for line in lines(report)] == [
        (20, "stdout", "hello"),
        (30, "stderr", "hello to stderr"),
        (20, "my.lib", "hello to the log"),
    ]
    assert all(report.started_at <= line.at <= report.ended_at for line in lines(report))


def test_log_prints_off_keeps_log_records_only(run: Run) -> None:
    report = run.report(user.say, {"text": "hello"}, log_prints=False)
    assert [line.source for line in lines(report)] == ["my.lib"]


def test_concurrent_calls_do_not_mix_their_output(run: Run) -> None:
    batches = {
        text: run.submit(run.call(user.say_slowly, {"text": text, "times": 10}))
        for text in ("left", "right")
    }
    for text, batch in batches.items():
        [report] = run.reports(batch)
        assert [line.text for line in lines(report)] == [text] * 10


def test_odd_output_is_kept_readable(run: Run) -> None:
    report = run.report(user.say_odd_things)
    assert [line.text for line in lines(report)] == ["surrogate ?", "100%", "no end"]


def test_a_failed_attempt_keeps_its_log(run: Run) -> None:
    failing = task_of(user.fail, retry_condition_fn=user.never)
    report = run.report(failing, {"kind": "ordinary"})
    assert [line.text for line in lines(report)] == ["asked about fail: OrdinaryError"]


# --- use of resources ---------------------------------------------------------------------------


def test_use_of_resources_is_measured(run: Run) -> None:
    report = run.report(user.burn, {"seconds": 0.2})
    assert 0.19 <= report.cpu_seconds < 2
    assert report.ended_at - report.started_at >= 0.19
    assert report.pid > 0
    assert report.host
    assert report.node_id


def test_peak_memory_covers_the_attempt(run: Run) -> None:
    report = run.report(user.use_memory, {"megabytes": 300})
    assert report.peak_memory > 300 << 20


# --- exceptions ---------------------------------------------------------------------------------


def test_an_exception_travels_whole(run: Run) -> None:
    report = run.report(user.fail, {"kind": "ordinary"})
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "tests.ray.user_tasks.OrdinaryError"
    assert report.error.pickled is not None
    error = pickle.loads(report.error.pickled)
    assert isinstance(error, user.OrdinaryError)
    assert error.args == ("it went wrong", 42)


def test_the_traceback_shows_user_code_only(run: Run) -> None:
    report = run.report(user.fail_with_cause)
    assert report.error is not None
    text = report.error.traceback
    assert "the outer one" in text
    assert "direct cause" in text
    files = {line.split('"')[1] for line in text.splitlines() if line.startswith("  File")}
    assert {Path(name).name for name in files} == {"user_tasks.py"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("two", "one and two"),
        ("broken", "BrokenText, whose text cannot be made: RuntimeError"),
        ("lock", "holds a lock"),
        ("base", "beyond Exception"),
    ],
)
def test_an_odd_exception_becomes_data(run: Run, kind: str, message: str) -> None:
    report = run.report(user.fail, {"kind": kind})
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert message in report.error.message
    assert "in fail" in report.error.traceback
    assert (report.error.pickled is None) == (kind != "base")


def test_sys_exit_fails_the_run_and_nothing_else(run: Run) -> None:
    report = run.report(user.call_sys_exit)
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "builtins.SystemExit"
    assert run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


def test_keyboard_interrupt_means_cancelled(run: Run) -> None:
    assert run.report(user.fail, {"kind": "interrupt"}).outcome is Outcome.CANCELLED


def test_retry_condition_is_asked_where_the_exception_is(run: Run) -> None:
    assert run.report(user.fail, {"kind": "lock"}).retriable
    assert not run.report(
        task_of(user.fail, retry_condition_fn=user.never), {"kind": "lock"}
    ).retriable


def test_a_broken_retry_condition_means_no_retry_and_is_logged(run: Run) -> None:
    failing = task_of(user.fail, retry_condition_fn=user.broken_condition)
    report = run.report(failing, {"kind": "ordinary"})
    assert not report.retriable
    assert "LookupError: the condition is broken" in lines(report)[0].text


def test_result_storage_that_cannot_be_written_fails_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    policy = ResultPolicy(persist=True, storage=str(tmp_path / "file" / "below"))
    report = run.report(user.big_array, {"megabytes": 1}, policy=policy)
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "raflow.errors.ResultStorageError"
    assert "'big_array'" in report.message
    assert str(tmp_path / "file") in report.message


def test_a_serializer_that_cannot_write_the_result_fails_the_run(run: Run) -> None:
    policy = ResultPolicy(persist=True, serializer=Serializer.JSON)
    report = run.report(user.big_array, {"megabytes": 1}, policy=policy)
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "raflow.errors.SerializationError"
    assert "'big_array': its result could not be kept" in report.message


# --- time limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [user.spin, user.sleep_async, user.block_loop])
def test_a_time_limit_ends_python_code(run: Run, task: Any) -> None:
    report = run.report(task, {"seconds": 600}, timeout=0.3)
    assert report.outcome is Outcome.TIMED_OUT
    assert report.error is not None
    assert "timeout_seconds=0.3" in report.error.message
    assert repr(task.__name__) in report.error.message
    assert report.error.pickled is not None
    assert isinstance(pickle.loads(report.error.pickled), TimeoutError)


def test_code_in_time_is_left_alone(run: Run) -> None:
    for _ in range(20):
        assert run.report(user.add, {"x": 1}, timeout=60).outcome is Outcome.COMPLETED


def test_code_cleans_up_at_its_time_limit(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for timeout in LIMITS:
        report = run.report(user.cleans_up, {"path": str(mark)}, timeout=timeout)
        assert report.outcome is Outcome.TIMED_OUT
        if mark.exists():
            break
    assert mark.read_text() == "cleaned up"


def test_an_import_is_not_interrupted_half_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'begun').touch()\n"
        "end = time.monotonic() + 1.5\n"
        "while time.monotonic() < end: pass\n"
        "(folder / 'mark').write_text('whole')\n"
    )
    for timeout in LIMITS:
        report = run.report(user.import_slowly, {"folder": str(tmp_path)}, timeout=timeout)
        assert report.outcome is Outcome.TIMED_OUT
        if (tmp_path / "begun").exists():
            break
    assert (tmp_path / "mark").read_text() == "whole"


def test_the_batch_goes_on_after_a_time_limit(run: Run) -> None:
    slow = run.call(user.spin, {"seconds": 600}, timeout=0.2)
    batch = run.submit(slow, run.call(user.add, {"x": 1}))
    assert [r.outcome for r in run.reports(batch)] == ["timed_out", "completed"]


# --- cancelling ---------------------------------------------------------------------------------


def test_a_waiting_batch_is_cancelled_while_it_waits(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    blocker = run.submit(run.call(user.hold, {"path": str(go)}), resources=TWO_CPUS)
    run.start_of(blocker)
    waiting = run.submit(run.call(user.add, items={"x": range(3)}), resources=TWO_CPUS)
    run.session.cancel(waiting, force=False)
    loss = run.lose(waiting)
    assert (loss.outcome, loss.running) == (Outcome.CANCELLED, ())
    go.touch()
    run.finish(blocker)


def test_running_code_is_interrupted(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(run.call(user.mark_and_spin, {"path": str(mark), "seconds": 600}))
    wait_for(mark.exists)
    run.session.cancel(batch, force=False)
    end = run.end_of(batch)
    assert outcome(end) is Outcome.CANCELLED


def test_code_that_runs_for_a_while_says_so_and_is_interrupted(run: Run) -> None:
    call = run.call(user.spin, {"seconds": 600})
    batch = run.submit(call)
    started = run.start_of(batch)
    assert (started.run, started.attempt) == (call.chunk.key(0), 1)
    assert started.pid > 0
    run.session.cancel(batch, force=False)
    [report] = run.reports(batch)
    assert report.outcome is Outcome.CANCELLED


def test_the_rest_of_a_cancelled_batch_does_not_start(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(
        run.call(user.add, {"x": 1}),
        run.call(user.spin, {"seconds": 600}),
        run.call(user.mark_and_spin, {"path": str(mark), "seconds": 0}),
    )
    run.start_of(batch)
    run.session.cancel(batch, force=False)
    outcomes = [report.outcome for report in run.reports(batch)]
    assert outcomes == ["completed", "cancelled", "cancelled"]
    assert run.fetch(batch, 0) == 2
    assert not mark.exists()


def test_async_calls_that_overlap_are_cancelled_together(run: Run) -> None:
    call = run.call(user.sleep_async, items={"seconds": [600.0] * 10}, concurrency=5)
    batch = run.submit(call)
    run.start_of(batch)
    run.session.cancel(batch, force=False)
    assert {report.outcome for report in run.reports(batch)} == {Outcome.CANCELLED}


def test_force_ends_code_that_ignores_everything(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(run.call(user.stubborn, {"path": str(mark)}))
    wait_for(mark.exists)
    run.session.cancel(batch, force=True)
    assert outcome(run.end_of(batch)) is Outcome.CANCELLED
    assert run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


def test_cancelling_what_has_ended_or_never_was_does_nothing(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"x": 1}))
    run.finish(batch)
    run.session.cancel(batch, force=True)
    run.session.cancel(12345, force=False)
    assert run.quiet(0.2)


def test_closing_ends_what_runs_and_is_silent(run: Run) -> None:
    batch = run.submit(run.call(user.spin, {"seconds": 600}), resources=TWO_CPUS)
    run.start_of(batch)
    run.submit(run.call(user.spin, {"seconds": 600}), resources=TWO_CPUS)
    run.close()
    assert run.quiet(0.7)


# --- resources ----------------------------------------------------------------------------------


def test_resources_are_honoured(run: Run) -> None:
    batches = [
        run.submit(run.call(user.interval, {"seconds": 0.1}), resources=TWO_CPUS) for _ in range(4)
    ]
    spans: list[Any] = sorted(run.fetch(batch) for batch in batches)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_calls_run_in_parallel(run: Run, tmp_path: Path) -> None:
    mine, other = str(tmp_path / "a"), str(tmp_path / "b")
    batches = [
        run.submit(run.call(user.meet, {"mine": mine, "other": other})),
        run.submit(run.call(user.meet, {"mine": other, "other": mine})),
    ]
    reports = [run.reports(batch)[0] for batch in batches]
    assert [report.outcome for report in reports] == ["completed", "completed"]


def test_capacity_says_what_can_never_be_met(backend: Backend) -> None:
    capacity = backend.capacity()
    assert capacity.cpus == 2
    assert shortfall(Resources(num_cpus=2), capacity) is None
    assert shortfall(Resources(memory=1 << 20), capacity) is None
    assert "num_cpus=3" in str(shortfall(Resources(num_cpus=3), capacity))
    assert "num_gpus=1" in str(shortfall(Resources(num_gpus=1), capacity))
    assert "ink" in str(shortfall(Resources(custom=(("ink", 1.0),)), capacity))
    assert capacity.remedy


def test_two_runs_share_a_backend(backend: Backend, tmp_path: Path) -> None:
    runs = [Run(backend, tmp_path / name) for name in ("a", "b")]
    batches = [run.submit(run.call(user.echo, {"value": i})) for i, run in enumerate(runs)]
    assert batches == [0, 0]
    for number, (run, batch) in enumerate(zip(runs, batches, strict=True)):
        assert run.fetch(batch) == number
        run.close()


def outcome(end: object) -> Outcome:
    if isinstance(end, BatchEnded):
        return end.report.told[0].outcome
    return end.outcome  # type: ignore[attr-defined, no-any-return]
