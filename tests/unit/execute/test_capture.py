from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import threading

from raflow.execute._capture import Capture, Sink, Sinking


def sink(limit: int = 10_000) -> Sink:
    return Sink(prints=True, level=logging.INFO, limit=limit)


def test_a_line_ends_where_the_text_says_so() -> None:
    made = sink()
    for piece in ("a", "b\nc", "\n", "\nd"):
        made.write("stdout", piece)
    made.write("stderr", "between")
    assert [(line.source, line.text) for line in made.close()] == [
        ("stdout", "ab"),
        ("stdout", "c"),
        ("stdout", ""),
        ("stdout", "d"),
        ("stderr", "between"),
    ]


def test_windows_line_ends_and_progress_bars() -> None:
    made = sink()
    made.write("stdout", "plain\r\n 1%\r99%\n")
    assert [line.text for line in made.close()] == ["plain", "99%"]


def test_nothing_is_kept_beyond_the_limit_not_even_of_one_line() -> None:
    made = sink(limit=1000)
    made.write("stdout", "first\n")
    for _ in range(100):
        made.write("stdout", "x" * 100)
    made.write("stdout", "\nlast\n")
    lines = made.close()
    assert lines[0].text == "first"
    assert sum(len(line.text) for line in lines[:-1]) < 1000
    assert "truncated" in lines[-1].text
    assert "last" not in [line.text for line in lines]


def test_empty_lines_count_as_well() -> None:
    made = sink(limit=1000)
    made.write("stdout", "\n" * 100_000)
    assert len(made.close()) < 50


def test_what_comes_after_the_end_is_lost() -> None:
    made = sink()
    assert made.close() == []
    made.write("stdout", "late\n")
    assert made.close() == []


def test_output_goes_where_it_went_before_too() -> None:
    terminal = io.StringIO()
    made = sink()
    with contextlib.redirect_stdout(terminal), Capture(logging.INFO):
        with Sinking(made, whole_process=False):
            print("both")
        print("terminal only")
    assert terminal.getvalue() == "both\nterminal only\n"
    assert [line.text for line in made.close()] == ["both"]


def test_a_closed_terminal_is_no_reason_to_fail() -> None:
    terminal = io.StringIO()
    made = sink()
    with contextlib.redirect_stdout(terminal), Capture(logging.INFO):
        terminal.close()
        with Sinking(made, whole_process=False):
            print("kept")
    assert [line.text for line in made.close()] == ["kept"]


def test_everything_is_restored() -> None:
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, root.level, list(root.handlers))
    with Capture(logging.DEBUG), Capture(logging.INFO):
        assert sys.stdout is not before[0]
        assert root.level == logging.DEBUG
    assert (sys.stdout, sys.stderr, root.level, list(root.handlers)) == before


def test_a_stream_put_in_our_place_is_wrapped_too() -> None:
    terminal = io.StringIO()
    made = sink()
    replaced = contextlib.redirect_stdout(terminal)
    with Capture(logging.INFO), replaced, Sinking(made, whole_process=False):
        print("seen")
    assert [line.text for line in made.close()] == ["seen"]
    assert terminal.getvalue() == "seen\n"


def test_the_stream_is_the_originals_in_all_else() -> None:
    with Capture(logging.INFO):
        assert sys.stdout.encoding
        sys.stdout.writelines(["a", "b"])
        sys.stdout.flush()


def test_log_records_keep_their_traceback() -> None:
    made = sink()
    with Capture(logging.INFO), Sinking(made, whole_process=False):
        try:
            [].pop()
        except IndexError:
            logging.getLogger("my").exception("it failed")
    [line] = made.close()
    assert line.level == logging.ERROR
    assert line.source == "my"
    assert line.text.startswith("it failed\nTraceback")


def test_threads_write_to_the_sink_of_a_process_that_runs_one_call() -> None:
    for whole, expected in ((True, ["thread"]), (False, [])):
        made = sink()
        with Capture(logging.INFO), Sinking(made, whole_process=whole):
            thread = threading.Thread(target=print, args=("thread",))
            thread.start()
            thread.join()
        assert [line.text for line in made.close()] == expected


def test_a_thread_that_prints_while_the_stream_is_restored_does_not_crash() -> None:
    """Fails by a segmentation fault where the stream is freed under `print`; see issue 130163."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_WHILE_RESTORING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


PRINT_WHILE_RESTORING = """
import logging, threading, time
from raflow.execute import Capture, Sink, Sinking

def chatter():
    with Sinking(Sink(prints=True, level=0), whole_process=False):
        while True:
            print("a", "b")

threading.Thread(target=chatter, daemon=True).start()
end = time.monotonic() + 3
while time.monotonic() < end:
    with Capture(logging.INFO):
        time.sleep(0)
"""
