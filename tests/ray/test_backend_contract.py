"""What every backend promises; each test runs on both."""

from __future__ import annotations

import itertools
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from raflow.execute import Backend, BatchEnded, Known, ListOf, Part, ValueRef
from raflow.model import Outcome, Resources, ResultPolicy, Serializer, shortfall
from tests.ray import user_tasks as user
from tests.ray.harness import Run, lines, task_of

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


def test_shared_arguments_merge_with_the_items_own(run: Run) -> None:
    call = run.call(user.add, {"x": 1, "y": 1})
    own = run.session.pack("add", {"y": 10})
    merged = type(call)(
        **{f: getattr(call, f) for f in call.__slots__} | {"arguments": (*call.arguments, own)}
    )
    assert run.session.fetch(ValueRef(run.finish(run.submit(merged)).values, 0)) == 11


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
    end = run.finish(run.submit(*calls))
    assert [report.run for report in end.report.calls] == [call.run for call in calls]
    spans: list[Any] = [run.session.fetch(ValueRef(end.values, i)) for i in range(5)]
    assert spans == sorted(spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_failing_call_does_not_end_its_batch(run: Run) -> None:
    good, bad = run.call(user.add, {"x": 1}), run.call(user.fail, {"kind": "ordinary"})
    end = run.finish(run.submit(good, bad, run.call(user.add, {"x": 5})))
    assert [r.outcome for r in end.report.calls] == ["completed", "failed", "completed"]
    assert run.session.fetch(ValueRef(end.values, 2)) == 6


def test_an_async_function_is_run_to_its_end(run: Run) -> None:
    report = run.report(user.add_later, {"x": 1, "y": 2})
    assert report.outcome is Outcome.COMPLETED
    assert [line.text for line in lines(report)] == ["added"]


def test_the_result_is_described_and_kept(run: Run) -> None:
    report = run.report(user.add, {"x": 1})
    assert report.result is not None
    assert (report.result.type, report.result.inline) == ("builtins.int", b"2")


def test_task_code_knows_its_run(run: Run) -> None:
    [report] = run.finish(run.submit(call := run.call(user.context, attempt=3))).report.calls
    assert report.attempt == 3
    seen: Any = run.session.fetch(run.value(user.context, attempt=2))
    assert (seen.flow, seen.flow_run_id, seen.flow_run_name) == ("testing", "run-1", "brave-test")
    assert (seen.task, seen.label, seen.attempt) == ("context", "context", 2)
    assert seen.run.node == call.run.node + 1


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
        [report] = run.finish(batch).report.calls
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
    assert 0.19 <= report.cpu_seconds < 0.5
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
    begun = time.monotonic()
    report = run.report(task, {"seconds": 30}, timeout=0.3)
    assert report.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begun < 10
    assert report.error is not None
    assert "timeout_seconds=0.3" in report.error.message
    assert repr(task.__name__) in report.error.message
    assert report.error.pickled is not None
    assert isinstance(pickle.loads(report.error.pickled), TimeoutError)


def test_code_in_time_is_left_alone(run: Run) -> None:
    for _ in range(20):
        assert run.report(user.add, {"x": 1}, timeout=5).outcome is Outcome.COMPLETED


def test_code_cleans_up_at_its_time_limit(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    report = run.report(user.cleans_up, {"path": str(mark)}, timeout=0.3)
    assert report.outcome is Outcome.TIMED_OUT
    assert mark.read_text() == "cleaned up"


def test_an_import_is_not_interrupted_half_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import time\n"
        "end = time.monotonic() + 0.6\n"
        "while time.monotonic() < end: pass\n"
        f"import pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).write_text('whole')\n"
    )
    report = run.report(user.import_slowly, {"folder": str(tmp_path)}, timeout=0.2)
    assert report.outcome is Outcome.TIMED_OUT
    assert (tmp_path / "mark").read_text() == "whole"


def test_the_batch_goes_on_after_a_time_limit(run: Run) -> None:
    slow = run.call(user.spin, {"seconds": 30}, timeout=0.2)
    end = run.finish(run.submit(slow, run.call(user.add, {"x": 1})))
    assert [r.outcome for r in end.report.calls] == ["timed_out", "completed"]


# --- cancelling ---------------------------------------------------------------------------------


def test_a_waiting_batch_is_cancelled_at_once(run: Run) -> None:
    blocker = run.submit(run.call(user.nap, {"seconds": 1}), resources=TWO_CPUS)
    waiting = run.submit(run.call(user.add, {"x": 1}), resources=TWO_CPUS)
    run.session.cancel(waiting, force=False)
    assert run.lose(waiting).outcome is Outcome.CANCELLED
    run.finish(blocker)


def test_running_code_is_interrupted(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(run.call(user.mark_and_spin, {"path": str(mark), "seconds": 30}))
    wait_for(mark)
    run.session.cancel(batch, force=False)
    end = run.end_of(batch, patience=10)
    assert outcome(end) is Outcome.CANCELLED


def test_code_that_runs_for_a_while_says_so_and_is_interrupted(run: Run) -> None:
    call = run.call(user.spin, {"seconds": 30})
    batch = run.submit(call)
    started = run.start_of(batch)
    assert (started.run, started.attempt) == (call.run, 1)
    assert started.pid > 0
    run.session.cancel(batch, force=False)
    [report] = run.finish(batch).report.calls
    assert report.outcome is Outcome.CANCELLED


def test_the_rest_of_a_cancelled_batch_does_not_start(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(
        run.call(user.spin, {"seconds": 30}),
        run.call(user.mark_and_spin, {"path": str(mark), "seconds": 0}),
    )
    run.start_of(batch)
    run.session.cancel(batch, force=False)
    end = run.finish(batch)
    assert [report.outcome for report in end.report.calls] == ["cancelled", "cancelled"]
    assert not mark.exists()


def test_force_ends_code_that_ignores_everything(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(run.call(user.stubborn, {"path": str(mark)}))
    wait_for(mark)
    run.session.cancel(batch, force=True)
    assert outcome(run.end_of(batch, patience=10)) is Outcome.CANCELLED
    assert run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


def test_cancelling_what_has_ended_or_never_was_does_nothing(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"x": 1}))
    run.finish(batch)
    run.session.cancel(batch, force=True)
    run.session.cancel(12345, force=False)
    assert run.quiet(0.2)


def test_closing_ends_what_runs_and_is_silent(run: Run) -> None:
    run.submit(run.call(user.spin, {"seconds": 30}), resources=TWO_CPUS)
    run.submit(run.call(user.spin, {"seconds": 30}), resources=TWO_CPUS)
    time.sleep(0.2)
    run.close()
    assert run.quiet(0.7)


# --- resources ----------------------------------------------------------------------------------


def test_resources_are_honoured(run: Run) -> None:
    batches = [
        run.submit(run.call(user.interval, {"seconds": 0.1}), resources=TWO_CPUS) for _ in range(4)
    ]
    ends = [run.finish(batch) for batch in batches]
    spans = sorted(run.session.fetch(ValueRef(end.values, 0)) for end in ends)  # type: ignore[type-var]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))  # type: ignore[index]


def test_calls_run_in_parallel(run: Run, tmp_path: Path) -> None:
    mine, other = str(tmp_path / "a"), str(tmp_path / "b")
    batches = [
        run.submit(run.call(user.meet, {"mine": mine, "other": other})),
        run.submit(run.call(user.meet, {"mine": other, "other": mine})),
    ]
    reports = [run.finish(batch).report.calls[0] for batch in batches]
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
        assert run.session.fetch(ValueRef(run.finish(batch).values, 0)) == number
        run.close()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcome(end: object) -> Outcome:
    if isinstance(end, BatchEnded):
        return end.report.calls[0].outcome
    return end.outcome  # type: ignore[attr-defined, no-any-return]
