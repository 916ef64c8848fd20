"""What a call of a flow does."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pytest

from raflow import errors
from raflow.define import (
    Dependency,
    Flow,
    Hole,
    TaskFuture,
    TaskRunContext,
    _runner,
    active_task,
    flow,
    register_runner,
    task,
)
from raflow.model import (
    Deployment,
    DeploymentSpec,
    FlowRun,
    NodeKind,
    State,
    StateName,
    TaskOptions,
    TaskRunKey,
)
from tests.unit.define.fake_flow import FakeFlow

DONE = State(name=StateName.COMPLETED, at=0)
RUN = FlowRun(id="1", flow="f", fingerprint="", name="", state=DONE)


@dataclass
class Outcome:
    value: Any
    error: BaseException | None = None
    flow_run: FlowRun = RUN

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Direct:
    """Runs the function of a flow and nothing else."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, dict[str, Any]]] = []

    def run_flow(self, flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Outcome:
        self.ran.append((flow.name, dict(parameters)))
        args, kwargs = flow.form.apply(parameters)
        try:
            return Outcome(flow.fn(*args, **kwargs))
        except Exception as error:
            return Outcome(None, error)

    def resume_flow(
        self, flow: Flow[..., Any], flow_run_id: str, *, allow_new_code: bool, force: bool
    ) -> Outcome:
        return Outcome((flow.name, flow_run_id, allow_new_code, force))

    def rerun_flow(self, flow: Flow[..., Any], flow_run_id: str, **options: Any) -> Outcome:
        return Outcome((flow.name, flow_run_id, options))

    def deploy_flow(
        self, flow: Flow[..., Any], spec: DeploymentSpec, *, name: str, **options: Any
    ) -> Deployment:
        return Deployment(name=name, flow=flow.name, version=1, spec=spec)

    def run_deployment(self, name: str, parameters: Mapping[str, Any], **_: Any) -> FlowRun:
        state = State(name=StateName.SCHEDULED, at=0.0)
        return FlowRun(
            id="1", flow="etl", fingerprint="", name=name, state=state, parameters=parameters
        )

    async def run_deployment_async(
        self, name: str, parameters: Mapping[str, Any], **_: Any
    ) -> FlowRun:
        return self.run_deployment(name, parameters)

    async def run_flow_async(self, flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Outcome:
        outcome = self.run_flow(flow, parameters)
        return Outcome(await outcome.value)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Direct:
    monkeypatch.setattr(_runner, "_registered", [])
    direct = Direct()
    register_runner(direct)
    return direct


@flow
def etl(day: int, *regions: str, mode: str = "add", **more: int) -> str:
    """Load a day."""
    return f"{day}{regions}{mode}{more}"


@flow
async def later(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


@flow
def fails() -> None:
    raise KeyError("x")


def test_a_flow_keeps_what_describes_its_function() -> None:
    assert (etl.name, etl.description, vars(etl)["__name__"]) == ("etl", "Load a day.", "etl")
    assert etl.source.startswith("@flow\ndef etl(day: int")
    assert (repr(etl), etl.is_async, later.is_async) == ("<Flow 'etl'>", False, True)


def test_a_call_validates_runs_and_returns_the_value(runner: Direct) -> None:
    assert etl("3", "eu", "us", extra="5") == "3('eu', 'us')add{'extra': 5}"  # type: ignore[arg-type]  # on purpose
    assert runner.ran == [
        ("etl", {"day": 3, "regions": ("eu", "us"), "mode": "add", "more": {"extra": 5}})
    ]
    with pytest.raises(KeyError):
        fails()


def test_nothing_runs_with_wrong_parameters(runner: Direct) -> None:
    with pytest.raises(errors.ParameterError):
        etl("tomorrow")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(errors.ParameterError):
        etl()  # type: ignore[call-arg]  # on purpose
    with pytest.raises(errors.ParameterError):
        _ = later("x")  # type: ignore[arg-type]  # on purpose
    assert runner.ran == []


def test_run_tells_how_it_went(runner: Direct) -> None:
    assert etl.run(1).value == "1()add{}"
    outcome = fails.run()
    assert isinstance(outcome.error, KeyError)
    assert later.run(1).value == 2


def test_a_run_is_resumed_by_the_runner(runner: Direct) -> None:
    assert etl.resume("run-1").value == ("etl", "run-1", False, False)
    assert etl.resume("latest", allow_new_code=True, force=True).value[2:] == (True, True)


def test_an_async_flow_is_awaited(runner: Direct) -> None:
    async def main() -> tuple[int, int]:
        return await later(1), later.run(5).value

    assert asyncio.run(main()) == (2, 6)


def test_the_runtime_runs_flows_unless_something_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_runner, "_registered", [])
    monkeypatch.setattr(_runner, "_DEFAULT", "tests.unit.define.some_runner")
    assert _runner.find_runner().__name__ == "tests.unit.define.some_runner"  # type: ignore[attr-defined]
    assert etl(3) == "some runner ran etl"


def test_in_a_flow_a_call_is_a_subflow(body: FakeFlow) -> None:
    @task
    def count() -> int:
        return 1

    future: Any = etl(count(), "eu", mode="x", extra=count())
    assert isinstance(future, TaskFuture)
    assert future.key == "etl-0"
    request = body.last
    assert (request.kind, request.target, request.options) == (
        *(NodeKind.SUBFLOW, etl),
        TaskOptions(),
    )
    assert request.arguments == {
        "day": Hole(0),
        "regions": ("eu",),
        "mode": "x",
        "more": {"extra": Hole(1)},
    }
    assert request.dependencies == (
        Dependency(source=0, parameter="day"),
        Dependency(source=1, parameter="extra"),
    )
    later.submit(3, wait_for=future, run_if=False)
    assert (body.last.arguments, body.last.runnable) == ({"n": 3}, False)
    with pytest.raises(errors.ParameterError, match="Flow 'later' has no parameter 'm'"):
        _ = later(m=3)  # type: ignore[call-arg]  # on purpose


def test_a_flow_cannot_start_inside_a_task(runner: Direct) -> None:
    key = TaskRunKey(0)
    context = TaskRunContext(
        flow_run_id="r", flow="f", flow_run_name="", task="t", label="t-0", run=key, attempt=1
    )
    token = active_task.set(context)
    try:
        with pytest.raises(errors.DefinitionError, match="'etl' was called inside a running task"):
            etl(1)
    finally:
        active_task.reset(token)
    with pytest.raises(errors.DefinitionError, match=r"Flow 'etl': `.submit\(\)` was called out"):
        etl.submit(1)
    assert runner.ran == []


def test_a_flow_travels_without_its_hooks() -> None:
    made = etl.with_options(name="moved", on_failure=[lambda f, run, state: None])
    made.validate(1)
    again = pickle.loads(cloudpickle.dumps(made))
    assert again._checker is None
    assert (again.name, again.validate(3)["day"]) == ("moved", 3)
    assert again.hooks_for(State(name=StateName.FAILED, at=0.0)) == ()
