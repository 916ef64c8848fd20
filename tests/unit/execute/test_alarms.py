from __future__ import annotations

import logging
import queue
import threading

import pytest

from raflow.execute._alarms import Alarms


@pytest.fixture
def alarms() -> Alarms:
    return Alarms("test-alarms")


def test_alarms_come_in_the_order_of_their_times(alarms: Alarms) -> None:
    rang: queue.SimpleQueue[str] = queue.SimpleQueue()
    alarms.after(0.6, lambda: rang.put("late"))
    alarms.after(0.02, lambda: rang.put("early"))
    assert [rang.get(timeout=100), rang.get(timeout=100)] == ["early", "late"]
    alarms.close()


def test_a_cancelled_alarm_does_not_come(alarms: Alarms) -> None:
    rang: queue.SimpleQueue[str] = queue.SimpleQueue()
    alarms.after(0.02, lambda: rang.put("cancelled")).cancel()
    alarms.after(0.04, lambda: rang.put("kept"))
    assert rang.get(timeout=100) == "kept"
    assert rang.empty()
    alarms.close()


def test_a_failing_alarm_is_logged_and_the_next_one_comes(
    alarms: Alarms, caplog: pytest.LogCaptureFixture
) -> None:
    rang = threading.Event()

    def fail() -> None:
        raise ValueError("invalid literal")

    alarms.after(0.0, fail)
    alarms.after(0.01, rang.set)
    assert rang.wait(100)
    assert "invalid literal" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR
    alarms.close()


def test_closing_ends_the_thread(alarms: Alarms) -> None:
    alarms.after(60, lambda: None)
    [thread] = [t for t in threading.enumerate() if t.name == "test-alarms"]
    alarms.close()
    thread.join(100)
    assert not thread.is_alive()
