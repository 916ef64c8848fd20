"""The worlds that flows run in: each backend with each database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raflow import config, runtime
from raflow.model import Attempt, FlowRun, LogLine, TaskRun
from raflow.store import Store


@dataclass(frozen=True)
class World:
    """Where the flows of a test run, and where to look at what they left."""

    backend: str
    database: str

    @property
    def store(self) -> Store:
        settings = config.load()
        return Store.open(settings.database, log_dir=settings.logs)

    def last_run(self, flow: str | None = None) -> FlowRun:
        with self.store as store:
            return store.flow_runs(flow=flow, limit=1)[0]

    def task_runs(self) -> dict[str, TaskRun]:
        """The task runs of the last root run, by label."""
        with self.store as store:
            run = store.find_flow_run("latest")
            return {task_run.label: task_run for task_run in store.task_runs(run.id)}

    def attempts(self, label: str) -> list[Attempt]:
        with self.store as store:
            run = store.find_flow_run("latest")
            key = next(t.key for t in store.task_runs(run.id) if t.label == label)
            return store.attempts(run.id, key=key)

    def log(self, label: str | None = None) -> list[LogLine]:
        """The log lines of a task run, or (None) of the body."""
        with self.store as store:
            run = store.find_flow_run("latest")
            keys = {t.label: t.key for t in store.task_runs(run.id)}
            wanted = keys[label] if label else None
            segments = [s for s in store.log_segments(run.id) if s.key == wanted]
            return [line for segment in segments for line in store.read_log(segment)]


@pytest.fixture(
    params=[
        pytest.param(("local", "sqlite"), id="local-sqlite"),
        pytest.param(("ray", "sqlite"), id="ray-sqlite", marks=pytest.mark.ray),
        pytest.param(("local", "postgres"), id="local-postgres", marks=pytest.mark.postgres),
        pytest.param(
            ("ray", "postgres"), id="ray-postgres", marks=[pytest.mark.ray, pytest.mark.postgres]
        ),
    ]
)
def world(
    request: pytest.FixtureRequest, raflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    backend, database = request.param
    if backend == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("RAFLOW_BACKEND", backend)
    if database == "postgres":
        monkeypatch.setenv("RAFLOW_DATABASE_URL", request.getfixturevalue("postgres_url"))
    return World(backend, database)


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The Ray that the flows of all tests share, under a home that outlives each test's."""
    runtime.open_backend("ray", config.load(home=tmp_path_factory.mktemp("ray-home")))
    yield
    runtime.shutdown()
