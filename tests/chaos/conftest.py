"""Worlds in which processes die, and what they run on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.world import World

MakeWorld = Callable[..., World]


def _may(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# Full disks and hosts of their own need a mount and a network of their own.
_PRIVILEGED = ("test_full_disks.py", "test_two_hosts.py")
_is_privileged = _may("unshare", "--mount", "--net", "true") and _may("ip", "netns", "list")
# What the kernel kills for want of memory needs a control group of its own (of the first version).
_MEMORY = "test_kernel_memory.py"
_has_groups = os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK)
collect_ignore = [*(() if _is_privileged else _PRIVILEGED), *(() if _has_groups else (_MEMORY,))]


_NIGHTLY = "CHAOS_NIGHTLY"


def _is_nightly(config: pytest.Config) -> bool:
    return _NIGHTLY in os.environ or "slow" in config.option.markexpr


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes long to the night."""
    if _is_nightly(config):
        return
    here = Path(__file__).parent
    left_out = [i for i in items if i.get_closest_marker("slow") and here in i.path.parents]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> list[str]:
    told = []
    if not _is_nightly(config):
        told.append(f"chaos: slow tests run with `-m slow`, and with all others with {_NIGHTLY}=1")
    if not _is_privileged:
        names = ", ".join(_PRIVILEGED)
        why = "this user may not mount file systems and make network namespaces here"
        told.append(f"chaos: {names} are left out: {why}. Run them as root, with iproute2.")
    if not _has_groups:
        told.append(f"chaos: {_MEMORY} is left out: no control groups can be made here")
    return told


@pytest.fixture(autouse=True)
def _stay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hosts fare badly, have processes run one batch after the other, as on a local Ray."""
    if request.path.stem == "test_two_hosts":
        monkeypatch.setenv("RAFLOW_RAY_STAY", "1")


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Make worlds, and end everything in them afterwards."""
    made: list[World] = []

    def make(backend: str, database: str = "", **environment: str) -> World:
        folder = tmp_path / f"world-{len(made)}"
        world = World(folder=folder, backend=backend, database=database, environment=environment)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def local_world(make_world: MakeWorld) -> World:
    """Tasks run on threads of the process that drives the run."""
    return make_world("local")


@pytest.fixture
def ray_world(make_world: MakeWorld) -> World:
    """The process that drives the run starts a Ray of its own."""
    return make_world("ray")


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray that outlives the processes that join it."""
    with Cluster.started(tmp_path_factory.mktemp("shared-ray")) as cluster:
        yield cluster


@pytest.fixture
def joined_world(make_world: MakeWorld, shared_ray: Cluster) -> World:
    """The process that drives the run joins a Ray which is not its own."""
    return make_world("ray", **shared_ray.environment)
