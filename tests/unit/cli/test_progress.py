"""The progress of a run: what is counted, and how it looks."""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from raflow.cli import _format
from raflow.cli._live import LiveProgress, StateBar, draw_rows
from raflow.cli._plain import PlainProgress
from raflow.cli._progress import Progress, Row
from raflow.model import (
    Chunk,
    FlowRun,
    GraphNode,
    LogLine,
    NodeKind,
    Place,
    State,
    StateName,
    StateType,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)
from raflow.runtime import Observer

T0 = 1_790_000_000.0
RUN = FlowRun(
    id="r1",
    flow="etl",
    fingerprint="f",
    name="etl-1",
    state=State(name=StateName.RUNNING, at=T0),
    created_at=T0,
)
READ = GraphNode(id=0, key="read-0", kind=NodeKind.TASK, name="read")
CLEAN = GraphNode(id=1, key="clean-0", kind=NodeKind.MAP, name="clean")
CHILD = GraphNode(id=2, key="sub-0", kind=NodeKind.SUBFLOW, name="sub")


def task_run(
    node: GraphNode,
    name: StateName,
    *,
    item: int = -1,
    run: str = "r1",
    at: float = T0,
    reason: str = "",
    message: str = "",
) -> TaskRun:
    final = name.type.is_final
    return TaskRun(
        flow_run_id=run,
        key=TaskRunKey(node.id, item),
        task=node.name,
        label=node.key if item < 0 else f"{node.key}[{item}]",
        state=State(name=name, at=at, reason=reason, message=message),
        started_at=None if name.type is StateType.PENDING else T0,
        ended_at=at if final else None,
    )


def block(*chunks: Chunk) -> TaskRunBlock:
    size = sum(chunk.size for chunk in chunks)
    return TaskRunBlock(
        flow_run_id="r1",
        number=0,
        chunks=chunks,
        submitted_at=T0,
        started_at=array("d", [T0] * size),
        ended_at=array("d", [T0 + 1] * size),
        cpu_seconds=array("d", [0.0] * size),
        place=Place(1, "here", "n"),
    )


def tell(observer: Observer, *runs: TaskRun) -> None:
    for run in runs:
        observer.task_run_changed(run)


@pytest.fixture
def progress() -> Progress:
    made = Progress()
    made.flow_run_changed(RUN)
    made.node_added("r1", READ)
    made.node_added("r1", CLEAN)
    return made


class TestProgress:
    def test_a_run_moves_from_state_to_state(self, progress: Progress) -> None:
        seen = []
        steps: list[Callable[[], None]] = [
            lambda: None,
            lambda: progress.task_runs_submitted("r1", [Chunk(READ.id)]),
            lambda: tell(progress, task_run(READ, StateName.RUNNING)),
            lambda: tell(progress, task_run(READ, StateName.COMPLETED)),
        ]
        for step in steps:
            step()
            row = progress.rows()[0]
            seen.append((row.state, row.counts.total(), row.submitted, row.is_done))
        assert seen == [
            (StateType.PENDING, 1, 0, False),
            (StateType.RUNNING, 1, 1, False),
            (StateType.RUNNING, 1, 0, False),
            (StateType.COMPLETED, 1, 0, True),
        ]

    def test_what_completes_together_is_counted_together(self, progress: Progress) -> None:
        progress.node_added("r1", CLEAN._replace(length=1000))
        progress.task_runs_submitted("r1", [Chunk(READ.id), Chunk(CLEAN.id, 0, 600)])
        progress.task_runs_completed(block(Chunk(READ.id), Chunk(CLEAN.id, 0, 500)))
        read, clean = progress.rows()
        assert read.is_done
        assert (clean.done, clean.submitted, clean.counts[StateType.PENDING]) == (500, 100, 500)
        assert (clean.started_at, clean.ended_at) == (T0, T0 + 1)

    def test_what_is_handed_back_and_sent_again_counts_once(self, progress: Progress) -> None:
        for _ in range(3):
            progress.task_runs_submitted("r1", [Chunk(READ.id)])
        assert progress.rows()[0].submitted == 1

    def test_what_failed_is_tried_again_with_its_flow(self, progress: Progress) -> None:
        progress.node_added("r1", CLEAN._replace(length=2))
        seen = []
        for name in (StateName.FAILED, StateName.PENDING, StateName.RECOVERED):
            if name.type.is_final:
                progress.task_runs_submitted("r1", [Chunk(CLEAN.id, 1, 2)])
            tell(progress, task_run(CLEAN, name, item=1))
            row = progress.rows()[1]
            seen.append((row.counts[StateType.PENDING], row.done, row.submitted))
        assert seen == [(1, 1, 0), (2, 0, 0), (1, 1, 0)]
        assert row.counts[StateType.FAILED] == 0

    def test_the_length_of_a_map_may_come_later(self, progress: Progress) -> None:
        assert progress.rows()[1].expected is None
        progress.node_added("r1", CLEAN._replace(length=3))
        assert progress.rows()[1].expected == 3
        for item in range(3):
            assert not progress.rows()[1].is_done
            tell(progress, task_run(CLEAN, StateName.COMPLETED, item=item))
        assert progress.rows()[1].is_done

    def test_single_calls_of_one_task_share_a_row(self, progress: Progress) -> None:
        assert progress.rows()[0].label == "read-0"
        again = READ._replace(id=7, key="read-1")
        progress.node_added("r1", again)
        tell(progress, task_run(READ, StateName.COMPLETED), task_run(again, StateName.RUNNING))
        row = progress.rows()[0]
        assert (row.label, row.expected, row.done, row.is_done) == ("read", 2, 1, False)

    def test_retries_are_counted_and_the_reason_goes_when_the_wait_is_over(
        self, progress: Progress
    ) -> None:
        progress.node_added("r1", CLEAN._replace(length=2))
        tell(
            progress,
            task_run(CLEAN, StateName.AWAITING_RETRY, item=0, reason="retry 1 of 2"),
            task_run(CLEAN, StateName.COMPLETED, item=1),
        )
        row = progress.rows()[1]
        assert (row.retries, row.state) == (1, StateType.SCHEDULED)
        assert row.waits is not None
        tell(progress, task_run(CLEAN, StateName.RETRYING, item=0))
        assert progress.rows()[1].waits is None
        tell(progress, task_run(CLEAN, StateName.RECOVERED, item=0))
        assert progress.rows()[1].state is StateType.COMPLETED

    def test_the_worst_end_marks_the_row(self, progress: Progress) -> None:
        progress.node_added("r1", CLEAN._replace(length=3))
        names = (StateName.COMPLETED, StateName.FAILED, StateName.SKIPPED)
        tell(progress, *(task_run(CLEAN, n, item=i) for i, n in enumerate(names)))
        assert progress.rows()[1].state is StateType.FAILED

    def test_the_tasks_of_a_subflow_stand_below_it(self, progress: Progress) -> None:
        progress.node_added("r1", CHILD)
        last = READ._replace(id=3, key="last-0", name="last")
        progress.node_added("r1", last)
        child = replace(RUN, id="r2", flow="sub", parent_id="r1", parent_node=2)
        progress.flow_run_changed(child)
        progress.node_added("r2", READ)
        tell(progress, task_run(READ, StateName.COMPLETED, run="r2"))
        rows = [(row.label, row.depth) for row in progress.rows()]
        assert rows == [("read-0", 0), ("clean-0", 0), ("sub-0", 0), ("read-0", 1), ("last-0", 0)]
        assert progress.flow_run == RUN

    def test_an_empty_map_is_done(self, progress: Progress) -> None:
        progress.node_added("r1", CLEAN._replace(length=0))
        assert progress.rows()[1].is_done

    def test_what_finished_takes_no_memory(self, progress: Progress) -> None:
        progress.node_added("r1", CLEAN._replace(length=1000))
        for item in range(1000):
            tell(
                progress,
                task_run(CLEAN, StateName.RUNNING, item=item),
                task_run(CLEAN, StateName.COMPLETED, item=item),
            )
        assert not progress._told


def drawn(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, height=24, color_system=None)


class TestLive:
    def rows(self) -> list[Row]:
        bar = Row(label="clean-0", kind=NodeKind.MAP, expected=10, retries=2, started_at=T0)
        bar.counts.update({StateType.COMPLETED: 5, StateType.RUNNING: 2, StateType.FAILED: 1})
        return [
            Row(label="read-0", kind=NodeKind.TASK, expected=1, started_at=T0, ended_at=T0 + 2),
            bar,
        ]

    @pytest.mark.parametrize("width", [40, 80, 120])
    def test_no_line_is_wider_than_the_terminal(self, width: int) -> None:
        screen = console(width)
        screen.print(draw_rows(self.rows(), T0 + 5, width=width, room=20))
        assert all(len(line) <= width for line in drawn(screen).splitlines())

    def test_a_map_has_a_bar_with_its_states(self) -> None:
        screen = console(20)
        screen.print(StateBar(self.rows()[1]))
        assert drawn(screen).rstrip("\n") == "━" * 12 + "╌" * 4 + "─" * 4

    def test_failures_and_retries_are_said(self) -> None:
        screen = console(100)
        screen.print(draw_rows(self.rows(), T0 + 5, width=100, room=20))
        line = drawn(screen).splitlines()[1]
        assert "6/10" in line
        assert "5.0 s" in line
        assert "1 failed · 2 retries" in line

    def test_what_is_done_makes_room_first(self) -> None:
        done = [self.finished(f"done-{n}", StateType.COMPLETED) for n in range(20)]
        rows = [*done, self.finished("bad-0", StateType.FAILED), self.rows()[1]]
        screen = console()
        screen.print(draw_rows(rows, T0 + 5, width=80, room=6))
        lines = drawn(screen).splitlines()
        assert len(lines) == 6
        assert "bad-0" in lines[3]
        assert "clean-0" in lines[4]
        assert "17 more tasks" in lines[5]

    def finished(self, label: str, kind: StateType) -> Row:
        row = Row(label=label, kind=NodeKind.TASK, expected=1)
        row.counts[kind] = 1
        return row

    def test_the_picture_of_a_run(self, progress: Progress) -> None:
        screen = console()
        live = LiveProgress(screen, progress=progress, clock=lambda: T0 + 65)
        tell(progress, task_run(READ, StateName.RUNNING))
        screen.print(live.draw())
        lines = drawn(screen).splitlines()
        assert lines[0].split() == ["▶", "etl", "etl-1", "1m", "05s"]
        assert lines[2].split() == ["▶", "read-0", "1m", "05s"]
        assert lines[-1].split() == ["▶", "1", "running"]

    def test_a_run_that_is_tried_again_says_which_attempt_it_is(self, progress: Progress) -> None:
        screen = console(100)
        live = LiveProgress(screen, progress=progress, clock=lambda: T0 + 65)
        waits = State(name=StateName.AWAITING_RETRY, at=T0, reason="attempt 2 of 3 in 10 s")
        again = State(name=StateName.RUNNING, at=T0, message="attempt 2 of 3")
        for state in (waits, again):
            progress.flow_run_changed(replace(RUN, state=state))
            screen.print(live.draw())
        headers = [line for line in drawn(screen).splitlines() if "etl-1" in line]
        assert "AwaitingRetry: attempt 2 of 3 in 10 s" in headers[0]
        assert "etl-1  attempt 2 of 3  " in headers[1]

    def test_before_there_is_a_run_it_says_that_it_starts(self) -> None:
        now = [T0]
        live = LiveProgress(console(), progress=Progress(), clock=lambda: now[0])
        now[0] += 2
        assert str(live.draw()) == "Starting … 2.0 s"


class TestPlain:
    def test_an_item_that_is_tried_again_with_its_flow_counts_once(self) -> None:
        screen = console(100)
        plain = PlainProgress(screen)
        plain.node_added("r1", CLEAN._replace(length=2))
        for name in (StateName.FAILED, StateName.PENDING, StateName.RECOVERED):
            tell(plain, task_run(CLEAN, name, item=1))
        tell(plain, task_run(CLEAN, StateName.COMPLETED, item=0))
        assert [line.split()[2] for line in drawn(screen).splitlines() if "clean-0 " in line] == [
            *("50%", "50%", "100%"),
        ]

    def test_a_run_that_waits_for_its_next_attempt_says_why_and_how_long(self) -> None:
        screen = console(100)
        why = State(name=StateName.AWAITING_RETRY, at=T0, message="boom", reason="attempt 2 of 3")
        PlainProgress(screen).flow_run_changed(replace(RUN, state=why))
        assert drawn(screen).rstrip().endswith("AwaitingRetry  etl etl-1  boom; attempt 2 of 3")

    def test_a_map_gets_a_line_for_each_tenth_and_for_what_goes_wrong(self) -> None:
        screen = console(100)
        plain = PlainProgress(screen)
        plain.flow_run_changed(RUN)
        plain.node_added("r1", CLEAN._replace(length=100))
        for item in range(100):
            tell(plain, task_run(CLEAN, StateName.RUNNING, item=item))
            failed = item == 33
            name = StateName.FAILED if failed else StateName.COMPLETED
            tell(plain, task_run(CLEAN, name, item=item, message="bad row" if failed else ""))
        lines = drawn(screen).splitlines()
        assert len(lines) == 12
        assert lines[1].split()[2:] == ["10%", "clean-0", "10/100"]
        assert lines[-1].split()[2:] == ["100%", "clean-0", "100/100"]
        assert [line.split()[2:] for line in lines if "bad row" in line] == [
            ["Failed", "clean-0[33]", "bad", "row"]
        ]

    def test_a_map_that_completes_in_blocks_gets_a_line_for_each_block_at_most(self) -> None:
        screen = console(100)
        plain = PlainProgress(screen)
        plain.node_added("r1", CLEAN._replace(length=100))
        for start in range(0, 100, 25):
            plain.task_runs_completed(block(Chunk(CLEAN.id, start, start + 25)))
        assert [line.split()[2] for line in drawn(screen).splitlines()] == [
            "25%",
            "50%",
            "75%",
            "100%",
        ]

    def test_very_many_single_calls_get_one_line_together(self) -> None:
        screen = console(100)
        plain = PlainProgress(screen)
        for node in range(100):
            plain.node_added("r1", READ._replace(id=node, key=f"read-{node}"))
        plain.task_runs_completed(block(*(Chunk(node) for node in range(100))))
        lines = drawn(screen).splitlines()
        assert lines[0].split()[2:] == ["Completed", "read-0", "1.0", "s"]
        assert lines[20].split()[2:] == ["Completed", "80", "more", "task", "runs"]
        assert len(lines) == 21

    def test_a_single_call_says_how_long_it_took(self) -> None:
        screen = console(100)
        plain = PlainProgress(screen)
        plain.node_added("r1", READ)
        tell(plain, task_run(READ, StateName.COMPLETED, at=T0 + 2))
        assert drawn(screen).split()[2:] == ["Completed", "read-0", "2.0", "s"]

    def test_log_lines_carry_their_label(self) -> None:
        screen = console(100)
        lines = [LogLine(T0, 20, "stdout", "a[b]\x1b[31mc\x1b[0m"), LogLine(T0, 40, "app", "no")]
        PlainProgress(screen).log_written("r1", "read-0", lines)
        shown = [line.split(" ", 1)[1] for line in drawn(screen).splitlines()]
        assert shown == ["read-0 a[b]c", "read-0 ERROR   no"]

    def test_what_the_body_writes_here_itself_is_not_repeated(self) -> None:
        lines = [LogLine(T0, 20, "stdout", "printed"), LogLine(T0, 40, "app", "logged")]
        screen, passed_on = console(100), {"stdout", "stderr"}
        for watcher in (
            PlainProgress(screen, passed_on=passed_on),
            LiveProgress(screen, progress=Progress(), passed_on=passed_on),
        ):
            watcher.log_written("r1", "", lines)
            watcher.log_written("r1", "read-0", lines)
        shown = drawn(screen)
        assert shown.count("printed") == 2
        assert shown.count("logged") == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "<1 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (59.96, "1m 00s"),
        (125, "2m 05s"),
        (7384, "2h 03m"),
        (-1, "<1 ms"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert _format.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (5 << 50, "5.0 PiB")],
)
def test_sizes(amount: int, text: str) -> None:
    assert _format.size(amount) == text
