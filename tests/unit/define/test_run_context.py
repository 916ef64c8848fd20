"""What running code can ask about its run."""

from __future__ import annotations

import logging

import pytest

from raflow import errors, get_run_context, get_run_logger
from raflow.define import TaskRunContext, active_task
from raflow.model import TaskRunKey
from tests.unit.define.fake_flow import FakeFlow

CONTEXT = TaskRunContext(
    flow_run_id="run-1",
    flow="etl",
    flow_run_name="etl-1",
    task="load",
    label="load-eu",
    run=TaskRunKey(3, 7),
    attempt=2,
    parameters={"day": 1},
)


def test_a_task_can_ask_about_its_run() -> None:
    token = active_task.set(CONTEXT)
    try:
        assert get_run_context() is CONTEXT
    finally:
        active_task.reset(token)


def test_elsewhere_there_is_no_task_run() -> None:
    with pytest.raises(errors.DefinitionError, match=r"outside a run, .* Call it inside a task"):
        get_run_context()


def test_the_body_of_a_flow_is_no_task_run(body: FakeFlow) -> None:
    with pytest.raises(errors.DefinitionError, match="called in a flow's body"):
        get_run_context()


def test_the_logger_of_a_task_knows_its_run(caplog: pytest.LogCaptureFixture) -> None:
    token = active_task.set(CONTEXT)
    try:
        with caplog.at_level(logging.INFO):
            get_run_logger().info("loaded %d rows", 5)
    finally:
        active_task.reset(token)
    [record] = caplog.records
    assert (record.name, record.getMessage()) == ("raflow.task_run", "loaded 5 rows")
    known = {name: vars(record)[name] for name in ("flow_run_id", "task", "task_run", "attempt")}
    assert known == {"flow_run_id": "run-1", "task": "load", "task_run": "load-eu", "attempt": 2}


def test_there_is_a_logger_everywhere(body: FakeFlow) -> None:
    assert get_run_logger().name == "raflow.flow_run"


def test_outside_a_run_it_is_an_ordinary_logger() -> None:
    assert get_run_logger().logger is logging.getLogger("raflow")
