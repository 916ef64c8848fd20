"""One Ray for all tests that need one, and each backend behind one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow.execute import Backend
from raflow.execute.local import LocalBackend
from raflow.execute.ray import RayBackend
from tests.ray.harness import Run

GRACE = 3.0


@pytest.fixture(scope="session")
def ray_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayBackend]:
    home = tmp_path_factory.mktemp("home")
    backend = RayBackend(home=home, num_cpus=2, grace_seconds=GRACE, stay=False)
    yield backend
    backend.close()


@pytest.fixture
def local_backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(resources={"CPU": 2}, grace_seconds=GRACE)
    yield backend
    backend.close()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def backend(request: pytest.FixtureRequest) -> Backend:
    fixture: Backend = request.getfixturevalue(f"{request.param}_backend")
    return fixture


@pytest.fixture
def run(backend: Backend, tmp_path: Path) -> Iterator[Run]:
    made = Run(backend, tmp_path / "results")
    yield made
    made.close()


@pytest.fixture
def ray_run(ray_backend: RayBackend, tmp_path: Path) -> Iterator[Run]:
    """A run whose processes stay for the next batch; those of `run`, for all backends, do not."""
    tenures = ray_backend._tools.tenures
    tenures.stay = True
    made = Run(ray_backend, tmp_path / "results")
    yield made
    made.close()
    tenures.stay = False


@pytest.fixture
def local_run(local_backend: LocalBackend, tmp_path: Path) -> Iterator[Run]:
    made = Run(local_backend, tmp_path / "results")
    yield made
    made.close()
