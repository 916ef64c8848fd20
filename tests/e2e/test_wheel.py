"""What users install: the wheel alone, in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOW = """
from raflow import flow, task

@task
def double(n: int) -> int:
    return 2 * n

@flow
def doubles() -> list[int]:
    return double.map([1, 2])

if __name__ == "__main__":
    print(doubles())
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel and what it asks for, no more."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel],
        check=True,
        capture_output=True,
        timeout=500,
    )
    return folder / "bin"


def output_of(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    name, version = wheel.stem.split("-")[:2]
    assert {name.partition("/")[0] for name in names} == {name, f"{name}-{version}.dist-info"}
    assert "raflow/py.typed" in names
    python = {path.relative_to(ROOT).as_posix() for path in (ROOT / "raflow").rglob("*.py")}
    assert python <= set(names)


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "run" in output_of(installed / "raflow", "--help", folder=tmp_path)


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_an_installed_raflow_runs_and_records_a_flow(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("RAFLOW_BACKEND", backend)
    (tmp_path / "double.py").write_text(FLOW, encoding="utf-8")
    assert "[2, 4]" in output_of(installed / "python", "double.py", folder=tmp_path)
    assert "doubles" in output_of(installed / "raflow", "runs", "ls", "--json", folder=tmp_path)
