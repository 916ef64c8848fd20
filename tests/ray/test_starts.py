"""Worker processes that Ray cannot start: what is told, and by what it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raflow.execute.ray import RayBackend
from raflow.execute.ray._connect import Token
from raflow.execute.ray._losses import classify
from raflow.execute.ray._trials import last_words
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run

RAYLET = """
[2026-11-23 16:42:41,067 C 30956 30956] authentication_token_loader.cc:111:  An unexpected state. \
Check failed: !result.hasError() RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty
*** StackTrace Information ***
/lib/ray/_raylet.so(+0x1812b9a) [0x7fe3b6612b9a] ray::operator<<()
[2026-11-23 16:43:37,954 E 30737 30737] (raylet) worker_pool.cc:660: Some workers are late
[2026-11-23 16:43:37,999 E 30737 30737] (raylet) worker_pool.cc:660: Some workers are late
Fatal Python error: init_fs_encoding: failed to get the Python codec
ModuleNotFoundError: No module named 'encodings'
  <no Python frame>
"""


@pytest.mark.ray
def test_only_calls_fail_whose_runtime_env_lets_no_process_start(
    ray_run: Run, ray_backend: RayBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_backend._starts._starts, "_limit", 1.0)
    gate = tmp_path / "gate"
    other = ray_run.submit(ray_run.call(user.hold, {"path": str(gate)}))
    ray_run.start_of(other)
    home = json.dumps({"env_vars": {"PYTHONHOME": "/secret"}})
    batch = ray_run.submit(ray_run.call(user.process), resources=Resources(runtime_env=home))
    lost = ray_run.lose(batch)
    assert lost.outcome is Outcome.FAILED
    assert lost.cause is not None
    assert lost.cause.kind == "runtime_env"
    assert "lets no worker process start" in lost.message
    assert "No module named 'encodings'" in lost.message
    assert "Check its env_vars" in lost.message
    assert "secret" not in lost.message
    gate.touch()
    ray_run.finish(other)


def test_the_token_of_a_local_ray_is_put_back(tmp_path: Path) -> None:
    token = Token(tmp_path / "home" / "ray" / "token", "abc")
    token.keep()
    assert not token.path.exists()  # all of it is gone: nobody needs a token there
    (tmp_path / "home").mkdir()
    token.keep()
    assert token.path.read_text() == "abc"
    assert token.path.stat().st_mode & 0o777 == 0o600
    token.path.write_text("another")
    token.keep()
    assert token.path.read_text() == "another"


def test_the_complaints_in_a_log_of_rays_are_found(tmp_path: Path) -> None:
    log = tmp_path / "raylet.err"
    assert last_words(log) == ()
    log.write_text(RAYLET)
    assert last_words(log) == [
        "Some workers are late",
        "Fatal Python error: init_fs_encoding: failed to get the Python codec",
        "ModuleNotFoundError: No module named 'encodings'",
    ]
    log.write_text(RAYLET[: RAYLET.index("[2026-11-23 16:43")])
    [word] = last_words(log)
    assert word.startswith("!result.hasError() RAY_AUTH_TOKEN_PATH is set but")


def test_why_a_runtime_env_cannot_be_set_up_is_told() -> None:
    from ray.exceptions import RuntimeEnvSetupError

    loss = classify(RuntimeEnvSetupError("Traceback ...\nRuntimeError: Please install virtualenv"))
    assert loss.outcome is Outcome.FAILED
    assert loss.cause is not None
    assert loss.cause.kind == "runtime_env"
    assert "could not be set up (RuntimeError: Please install virtualenv)" in loss.message
