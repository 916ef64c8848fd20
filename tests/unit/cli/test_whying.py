"""`raflow why`, over a record."""

from __future__ import annotations

import json

import pytest

from raflow.cli._errors import ExitCode
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, Cli


@pytest.mark.usefixtures("record")
def test_a_run_that_is_over_says_so_and_what_recovered(cli: Cli) -> None:
    told = cli("why", "etl-0000aa")
    assert "it does not wait: it is over, Failed" in told.out
    assert "Recovered  odd one: attempt 2 completed" in told.out
    found = json.loads(cli("why", RUN_ID, "--json").out)
    assert (found["waits"], found["summary"]) == ([], "it does not wait: it is over, Failed")
    [note] = found["notes"]
    assert (note["state"], note["calls"], note["count"]) == ("Recovered", ["odd one"], 1)
    assert cli("why", "etl-zz").code == ExitCode.USAGE


def test_a_run_of_a_deployment_names_the_command_that_lets_it_begin(
    cli: Cli, record: Store
) -> None:
    assert record.is_embedded
    with open("etl.py", "w", encoding="utf-8") as file:
        file.write("from raflow import flow\n\n@flow\ndef etl() -> None:\n    pass\n")
    cli("deploy", "etl.py:etl", "--name", "nightly")
    cli("deployments", "pause", "nightly")
    ordered = json.loads(cli("run-deployment", "nightly", "--json").out)["id"]
    told = cli("why", ordered).out
    assert "it waits" in told
    assert "● deployment 'nightly' is paused" in told
    assert "raflow deployments resume nightly" in told
    assert "raflow worker --pool default" in told
