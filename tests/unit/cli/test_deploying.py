"""Deploying from the command line, and what there is to see of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raflow import config, errors
from raflow.bundles import Archive, BundleStore
from raflow.cli._errors import ExitCode
from raflow.define import find_flow
from raflow.store import Store
from tests.unit.cli.conftest import Cli

FLOW = """
from raflow import flow, task

from helpers import twice

@task
def load(region: str) -> int:
    return twice(len(region))

@flow
def etl(regions: list[str], day: str = "today", limit: int = 3) -> list[int]:
    return [load(region) for region in regions]

@flow
def Other() -> None: ...
"""
HELPERS = "def twice(n: int) -> int:\n    return 2 * n\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose flow is in a folder; the commands run outside of it."""
    root = tmp_path / "project"
    files = {
        "pyproject.toml": "",
        "flows/etl.py": FLOW,
        "flows/helpers.py": HELPERS,
        ".gitignore": "data/\n",
        "data/big": "x",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def deploy(cli: Cli, project: Path, *options: str, flow: str = "etl") -> Any:
    ended = cli("deploy", f"{project}/flows/etl.py:{flow}", "--json", *options)
    assert ended.code == ExitCode.OK, ended.err
    return json.loads(ended.out)


def settings_of(cli: Cli, name: str, *options: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(cli("deployments", "diff", name, "--json", *options).out)
    return found


def test_a_flow_is_kept_with_its_code(cli: Cli, project: Path, raflow_home: Path) -> None:
    told = cli("deploy", f"{project}/flows/etl.py:etl", "-n", "nightly", "-p", 'regions=["eu"]')
    assert "'nightly' is made: version 1, 4 files of" in told.out
    assert str(project) in told.out
    with Store.open(config.load().database, log_dir=raflow_home / "logs") as store:
        version = store.deployments.version("nightly")
        code = store.flow_version(version.fingerprint, flow="etl")
    assert version.spec.entrypoint == code.entrypoint == "flows/etl.py:etl"
    assert version.spec.parameters == {"regions": ["eu"]}
    assert set(version.parameter_schema["properties"]) == {"regions", "day", "limit"}
    assert version.packages["pytest"]
    assert "@" in version.actor
    assert "def etl" in code.source
    bundles = BundleStore(str(raflow_home / "bundles"))
    with bundles.open(version.bundle) as file:
        packed = Archive(file, version.bundle).check()
    paths = [entry.path for entry in packed.entries]
    assert paths == [".gitignore", "flows/etl.py", "flows/helpers.py", "pyproject.toml"]


def test_the_same_again_is_told_as_unchanged(cli: Cli, project: Path) -> None:
    assert deploy(cli, project, "-n", "nightly")["is_new"] is True
    again = deploy(cli, project, "-n", "nightly", "--note", "once more")
    assert (again["is_new"], again["version"]) == (False, 1)
    told = cli("deploy", f"{project}/flows/etl.py:etl", "-n", "nightly")
    assert "'nightly' is unchanged: version 1." in told.out


def test_a_change_is_a_version_with_what_is_different(cli: Cli, project: Path) -> None:
    deploy(cli, project, "-n", "nightly", "-p", "limit=3")
    (project / "flows/helpers.py").write_text(HELPERS + "# twice as much\n")
    (project / "flows/more.py").write_text("")
    command = ("deploy", f"{project}/flows/etl.py:etl", "-n", "nightly", "-p", "limit=4")
    told = cli(*command, "--pool", "gpu", "--note", "more of it")
    assert "'nightly' has version 2: 2 files and 2 settings." in told.out
    found = settings_of(cli, "nightly")
    assert (found["from"], found["to"]) == (1, 2)
    assert found["settings"] == [
        {"path": "parameters.limit", "from": 3, "to": 4},
        {"path": "pool", "from": "default", "to": "gpu"},
    ]
    assert found["files"] == [
        {"path": "flows/helpers.py", "change": "changed"},
        {"path": "flows/more.py", "change": "added"},
    ]
    shown = cli("deployments", "diff", "nightly").out
    assert "Version 1 -> 2" in shown
    assert "  parameters.limit: 3 -> 4" in shown
    assert "  added    flows/more.py" in shown
    assert "nothing is different" in cli("deployments", "diff", "nightly", "--from", "2").out
    back = settings_of(cli, "nightly", "--from", "2", "--to", "1")
    assert back["files"][1] == {"path": "flows/more.py", "change": "removed"}
    lines = cli("deployments", "versions", "nightly").out.splitlines()
    assert lines[2].split()[:2] == ["2", "*"]
    assert lines[2].endswith("more of it")


def test_rolling_back_and_forth(cli: Cli, project: Path) -> None:
    deploy(cli, project, "-n", "nightly", "--priority", "1")
    deploy(cli, project, "-n", "nightly", "--priority", "2")
    assert "uses version 1" in cli("deployments", "rollback", "nightly", "1").out
    (found,) = json.loads(cli("deployments", "ls", "--json").out)
    assert (found["version"], found["priority"], found["revision"]) == (1, 1, 3)
    assert deploy(cli, project, "-n", "nightly", "--priority", "1")["is_new"] is False
    ended = cli("deployments", "rollback", "nightly", "9")
    assert ended.code == ExitCode.USAGE
    assert "its versions are 1 to 2" in ended.err


def test_listing_and_showing(cli: Cli, project: Path) -> None:
    assert "raflow deploy FILE:FLOW --name NAME" in cli("deployments", "ls").out
    deploy(cli, project, "-n", "nightly", "--tag", "a", "--tag", "b", "--concurrency", "2")
    deploy(cli, project, flow="Other")
    lines = cli("deployments", "ls").out.splitlines()
    assert [line.split()[:4] for line in lines[2:]] == [
        ["nightly", "etl", "1", "default"],
        ["other", "Other", "1", "default"],
    ]
    shown = cli("deployments", "show", "nightly").out
    assert "Entrypoint   flows/etl.py:etl" in shown
    assert "Tags         a, b" in shown
    assert "Concurrency  2" in shown
    found = json.loads(cli("deployments", "show", "nightly", "--json").out)
    assert found["uses"]["number"] == 1
    assert "'nightly' is removed." in cli("deployments", "rm", "nightly").out
    ended = cli("deployments", "show", "nigthly")
    assert (ended.code, "No deployment" in ended.err) == (ExitCode.USAGE, True)
    assert deploy(cli, project, "-n", "nightly")["version"] == 2


def test_secrets_are_left_out_with_a_warning(cli: Cli, project: Path) -> None:
    (project / ".env").write_text("PASSWORD=x")
    ended = cli("deploy", f"{project}/flows/etl.py:etl")
    assert "'.env' is left out" in ended.err
    assert "--include .env" in ended.err
    assert deploy(cli, project, "--include", ".env")["files"] == 5


def test_the_home_is_not_packed(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFLOW_HOME", str(project / "state/home"))
    assert deploy(cli, project)["files"] == 4
    assert deploy(cli, project)["is_new"] is False


def test_a_flow_deploys_itself_as_the_command_does(
    cli: Cli, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / ".env").write_text("PASSWORD=x")
    etl = find_flow(f"{project}/flows/etl.py:etl").flow
    made = etl.deploy("nightly", parameters={"limit": 4}, tags=["a"], priority=1, concurrency=2)
    assert (made.name, made.version, made.spec.entrypoint) == ("nightly", 1, "flows/etl.py:etl")
    assert "'.env' is left out" in caplog.text
    options = ("-p", "limit=4", "--tag", "a", "--priority", "1", "--concurrency", "2")
    assert deploy(cli, project, "-n", "nightly", *options)["is_new"] is False
    assert etl.deploy(exclude=["pyproject.toml"], root=project).name == "etl"
    with pytest.raises(errors.ParameterError, match="must be JSON"):
        etl.deploy(parameters={"regions": object()})
    with pytest.raises(errors.ParameterError, match="Did you mean 'limit'"):
        etl.deploy(parameters={"limti": 1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "Nightly"], "is no name of a deployment"),
        (["--name", "../x"], "is no name of a deployment"),
        (["-p", "limti=3"], "Did you mean 'limit'"),
        (["-p", "limit=many"], "limit"),
        (["--root", "flows/none"], "which is not below"),
        (["--exclude", "etl.py"], "is left out by the ignore files"),
        (["--include", "none.txt"], "names no file"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_kept(
    cli: Cli, project: Path, options: list[str], said: str
) -> None:
    ended = cli("deploy", f"{project}/flows/etl.py:etl", *options)
    assert ended.code == ExitCode.USAGE
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert json.loads(cli("deployments", "ls", "--json").out) == []


def test_a_storage_that_cannot_be_written_is_the_environments_fault(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_BUNDLE_STORAGE", str(project / "pyproject.toml/below"))
    ended = cli("deploy", f"{project}/flows/etl.py:etl")
    assert ended.code == ExitCode.ENVIRONMENT
    assert "cannot be written" in ended.err
