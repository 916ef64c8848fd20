"""What every test has: its own RAFLOW_HOME, a clean environment, and a hypothesis profile.

And what all have together: they leave no process behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.postgres import empty_postgres_url, postgres_server, postgres_tables, postgres_url

__all__ = ["empty_postgres_url", "postgres_server", "postgres_tables", "postgres_url"]

hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=200, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)

_BEGUN_BY = "TESTS_BEGUN_BY"
"""A variable of the environment that all processes have which these tests have begun."""
_PATIENCE_SECONDS = 60.0
_TESTS = Path(__file__).parent


_LONG = """
chaos/test_crash_points.py
flows/test_durable.py
e2e/test_examples.py
e2e/test_cli.py
e2e/test_deployments.py
flows/test_semantics.py
chaos/test_driver_deaths.py
flows/test_batches.py
chaos/test_worker_deaths.py
chaos/test_reaping.py
chaos/test_two_hosts.py
store/test_work.py
chaos/test_cancels.py
docs/test_python_blocks.py
store/test_limits.py
store/test_leases.py
store/test_schedules.py
flows/test_rerun.py
e2e/test_wheel.py
chaos/test_table.py
chaos/test_resume.py
flows/test_on_ray.py
ray/test_ray_connect.py
store/test_migrations.py
ray/test_backend_contract.py
server/test_remote.py
ray/test_probes.py
server/test_outage.py
chaos/test_no_workers.py
"""
"""The files of tests that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that processes that share the files end together."""
    rank = {str(_TESTS / name): number for number, name in enumerate(_LONG.split())}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left() -> Iterator[None]:
    """Fail, at the very end, if a process is still there that a test or a fixture has begun."""
    mark = f"{_BEGUN_BY}={os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*mark.split("="))
        yield
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (left := _with_mark(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left:
        pytest.fail(f"tests have left processes behind, which are ended now: {left}", pytrace=False)


def _with_mark(mark: str) -> dict[int, str]:
    """Find processes by a variable of the environment that they began with, and their commands."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode(errors="replace")[:200]
    return found


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(
    _nothing_left: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keep the developer's own settings and history out of the tests.

    Fixtures with a wider scope than one test (a Ray, a server) see this home.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("RAFLOW_"):
                patch.delenv(name)
        # Not the Ray that somebody has started on this machine, perhaps for another raflow.
        patch.setenv("RAY_ADDRESS", "local")
        # A test that wants others to look after its dead runs says so.
        patch.setenv("RAFLOW_REAP", "0")
        patch.setenv("RAFLOW_HOME", str(tmp_path_factory.mktemp("raflow-home")))
        yield


@pytest.fixture(autouse=True)
def raflow_home(_clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The RAFLOW_HOME of this test: a path in its `tmp_path`, not yet made."""
    home = tmp_path / "raflow-home"
    monkeypatch.setenv("RAFLOW_HOME", str(home))
    return home
