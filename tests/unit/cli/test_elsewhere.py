"""Where a service keeps the record, no command shows or changes that of this machine instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from raflow import config, errors, flow, run_deployment, serve
from raflow.cli._app import app
from tests.unit.cli.conftest import Cli

SPEAK = {"run", "resume", "rerun", "spool ls", "spool send", "worker", "doctor"}
"""These speak with the service."""
LOCAL = {
    "graph": "draws code, and looks at no record",
    "version": "tells of this installation",
    "server": "is the service",
    "server link": "is on the machine of the service",
    "server openapi": "describes the service",
    "db upgrade": "is about the database that it names",
    "db path": "is about the database that it names",
}
ARGUMENTS = {
    "deploy": ["flows.py:hello"],
    "run-deployment": ["nightly"],
    "cache clear": ["--all", "--yes"],
    "backfill create": ["nightly", "--since", "2026-01-01", "--until", "2026-01-02"],
    "schedules set": ["nightly/main", "--cron", "0 0 * * *"],
}
FLOW = """
from raflow import flow

@flow
def hello() -> int:
    return 1
"""


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield " ".join((*path, name)), command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_each_command_is_known_here() -> None:
    assert set(LOCAL) | SPEAK <= set(COMMANDS)
    assert set(ARGUMENTS) <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - SPEAK - set(LOCAL)))
def test_what_does_not_speak_with_a_service_says_so(
    name: str, cli: Cli, tmp_path: Path, raflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_API_URL", "https://raflow.example")
    (tmp_path / "flows.py").write_text(FLOW)
    needed = ["1" for parameter in COMMANDS[name].params if parameter.required]
    ended = cli(*name.split(), *ARGUMENTS.get(name, needed))
    said = " ".join(ended.err.replace("│", " ").split())
    assert ended.code == 3, ended
    assert "RAFLOW_API_URL names the service at https://raflow.example" in said
    assert not (raflow_home / "raflow.db").exists()


def test_what_python_does_with_deployments_says_so_too(
    raflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def hello() -> int:
        return 1

    monkeypatch.setenv("RAFLOW_API_URL", "https://raflow.example")
    with pytest.raises(errors.ConfigError, match=r"run_deployment\(\) knows the database"):
        run_deployment("nightly")
    with pytest.raises(errors.ConfigError, match=r"flow.deploy\(\) knows the database"):
        hello.deploy("nightly")
    with pytest.raises(errors.ConfigError, match=r"serve\(\) knows the database"):
        serve()
    assert not (raflow_home / "raflow.db").exists()
    monkeypatch.delenv("RAFLOW_API_URL")
    config.load().check_local("This")
