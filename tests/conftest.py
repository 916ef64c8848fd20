"""What every test has: its own RAFLOW_HOME, a clean environment, and a hypothesis profile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=200, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the developer's own settings and history out of the tests.

    Fixtures with a wider scope than one test (a Ray, a server) see this home.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("RAFLOW_") or name == "RAY_ADDRESS":
                patch.delenv(name)
        patch.setenv("RAFLOW_HOME", str(tmp_path_factory.mktemp("raflow-home")))
        yield


@pytest.fixture(autouse=True)
def raflow_home(_clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The RAFLOW_HOME of this test: a path in its `tmp_path`, not yet made."""
    home = tmp_path / "raflow-home"
    monkeypatch.setenv("RAFLOW_HOME", str(home))
    return home
