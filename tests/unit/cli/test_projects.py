"""`raflow.yaml`: what is wrong with one, and deploying what it describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raflow import errors
from raflow.cli._errors import ExitCode
from raflow.runtime.deploying import project_schema, read_project
from tests.unit.cli.conftest import Cli

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "deployments.md").read_text(encoding="utf-8")


def block(title: str) -> str:
    found = re.search(rf'```\w+ title="{title}"\n(.*?)```', PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "raflow.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(errors.ProjectError) as refused:
        read_project(file)
    told = [one.removeprefix(f"{file}:") for one in refused.value.details["problems"]]
    assert refused.value.message.count("\n") == len(told) - 1
    return told


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "project: this key is missing. A name that tells"),
        ("project: p\npolo: 1\n", 2, "polo: there is no such key. Did you mean 'pools'?"),
        ("project: p\nxyz: 1\n", 2, "xyz: there is no such key. There are project, defaults,"),
        ("project: p\npools: 3\n", 2, "pools: keys and values belong here, not 3."),
        ("project: p\ndefaults:\n  tag: [a]\n", 3, "defaults.tag: there is no such key. Did you"),
        ("project: p\nlimits:\n  w: 3\n", 3, "limits.w: keys and values belong here, not 3"),
        ("project: p\nlimits:\n  w:\n    slots: -1\n", 4, "limits.w.slots: this should be greater"),
        ("project: p\ndeployments:\n  A B:\n    flow: x\n", 3, "'A B' is no name. Write up to"),
        ("project: p\ndeployments:\n  a: {}\n", 3, "deployments.a.flow: this key is missing. FILE"),
        ("project: p\nproject: q\n", 2, "the key 'project' is there twice. Remove one."),
        ("project: [p\n", 2, "this is no YAML: while parsing a flow sequence"),
        ("a: &a [*a]\n", 1, "this is too deep"),
        ("project: !!python/object:os.system x\n", 1, "this is no YAML: could not determine"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    [only] = problems(tmp_path, text)
    assert only.startswith(f"{line}: ")
    assert said in only


def test_all_that_is_wrong_is_told_in_its_order(tmp_path: Path) -> None:
    form = (
        "project: p\ndeployments:\n  a:\n    flow: f.py:a\n    concurency: 1\n    priority: high\n"
    )
    schedule = "    schedules:\n      main: {cron: x, overlap: sometimes, jiter: 5m}\n"
    told = problems(tmp_path, form + schedule)
    assert [one.split(":")[0] for one in told] == ["5", "6", "8", "8"]
    assert "Did you mean 'concurrency'?" in told[0]
    assert "this should be a valid integer, not 'high'. Runs with a higher one" in told[1]
    assert any("should be 'skip', 'buffer_one'" in one for one in told)
    assert any("main.jiter: there is no such key. Did you mean 'jitter'?" in one for one in told)


def test_wrong_schedules_are_told_before_code_is_loaded(tmp_path: Path) -> None:
    form = "project: p\ndeployments:\n  a:\n    flow: none.py:a\n    schedules:\n"
    rules = "      x:\n        jitter: 5m\n        cron: '30 2'\n      y: {}\n      z: {at: soon}\n"
    cron, none, at = problems(tmp_path, form + rules)
    assert cron.startswith("8: deployments.a.schedules.x.cron: Cron expression '30 2' has 2 field")
    assert none.startswith("9: deployments.a.schedules.y: A schedule has one of cron, interval")
    assert at.startswith("10: deployments.a.schedules.z.at: at: 'soon' is no time")


def test_texts_stay_texts_and_parts_are_shared(tmp_path: Path) -> None:
    file = tmp_path / "raflow.yaml"
    file.write_text(
        "project: p\n"
        "deployments:\n"
        "  a: &a\n"
        "    flow: etl.py:etl\n"
        "    parameters: {day: 2026-01-31, on: off, at: 1:30, n: 010, x: 1e3, none: null}\n"
        "  b:\n"
        "    <<: *a\n"
        "    pool: gpu\n"
    )
    a, b = read_project(file).deployments
    assert a.spec.parameters == {
        **{"day": "2026-01-31", "on": "off", "at": "1:30"},
        **{"n": 10, "x": 1000.0, "none": None},
    }
    assert b.spec.parameters == a.spec.parameters
    assert (a.spec.pool, b.spec.pool, b.spec.project) == ("default", "gpu", "p")
    assert a.flow == str(tmp_path / "etl.py:etl")


def test_the_schema_that_editors_use_is_that_of_the_code() -> None:
    kept = (ROOT / "docs" / "assets" / "raflow.schema.json").read_text(encoding="utf-8")
    assert kept == project_schema(), "raflow deploy --schema > docs/assets/raflow.schema.json"


def test_the_page_is_deployed_changed_and_pruned(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "raflow.yaml"
    (tmp_path / "etl.py").write_text(block("etl.py"), encoding="utf-8")
    file.write_text(block("raflow.yaml"), encoding="utf-8")

    planned = cli("deploy", "--dry-run")
    assert planned.code == ExitCode.OK, planned.err
    shown = PAGE.partition("$ raflow deploy --dry-run\n")[2].partition("$ raflow deploy\n")[0]
    assert planned.out == shown
    assert json.loads(cli("deployments", "ls", "--json").out) == []

    assert "+ deployment nightly is made" in cli("deploy").out
    found = {one["name"]: one for one in json.loads(cli("schedules", "ls", "--json").out)}
    assert found.keys() == {"main", "weekend"}
    assert found["main"]["timezone"] == "Europe/Paris"
    assert steps(cli) == {"gpu": "keep", "warehouse": "keep", "nightly": "keep", "by-hand": "keep"}

    text, end = block("raflow.yaml").split("  by-hand:")
    assert "pool: gpu" in end
    file.write_text(
        text.replace("concurrency: 1", "concurrency: 2").replace("slots: 3", "slots: 4")
    )
    cli("deploy", "etl.py:etl", "--name", "mine", "-p", "regions=[]")
    planned = cli("deploy", "--dry-run")
    assert "~ limit warehouse would be changed\n    slots: 3 -> 4\n" in planned.out
    assert "~ deployment nightly would be changed\n    concurrency: 1 -> 2\n" in planned.out
    assert "! deployment by-hand is not in the file any more" in planned.out
    assert "--prune removes what is" in planned.out
    assert steps(cli, "--prune") == {
        **{"gpu": "keep", "warehouse": "change"},
        **{"nightly": "change", "by-hand": "remove"},
    }
    left = [one["name"] for one in json.loads(cli("deployments", "ls", "--json").out)]
    assert left == ["mine", "nightly"]


def steps(cli: Cli, *options: str) -> dict[str, Any]:
    found = json.loads(cli("deploy", "--json", *options).out)
    return {step["name"]: step["action"] for step in found["steps"]}


def test_nothing_is_written_if_one_flow_cannot_be_deployed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text(block("etl.py"), encoding="utf-8")
    (tmp_path / "raflow.yaml").write_text(
        "project: p\n"
        "pools: {gpu: {}}\n"
        "deployments:\n"
        "  good:\n"
        "    flow: etl.py:etl\n"
        "  gone:\n"
        "    flow: etl.py:gone\n"
        "  wrong:\n"
        "    flow: etl.py:etl\n"
        "    parameters: {regios: []}\n"
    )
    told = cli("deploy")
    assert told.code == ExitCode.USAGE
    text = " ".join(told.err.replace("│", " ").split())
    assert "raflow.yaml:7: deployments.gone.flow:" in text
    assert "raflow.yaml:10: deployments.wrong.parameters: Flow 'etl' has no parameter" in text
    assert json.loads(cli("pools", "ls", "--json").out) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pool", "gpu"), "--pool: for one flow only. Name it (raflow deploy FILE[:FLOW])"),
        (("etl.py", "--prune"), "--prune: for a raflow.yaml only. Leave out 'etl.py'."),
        (("--name", "x", "--prune"), "--name is for one deployment"),
        (("-f", "none.yaml"), "There is no file 'none.yaml'."),
    ],
)
def test_options_of_the_other_way_are_refused(
    cli: Cli, options: tuple[str, ...], said: str
) -> None:
    told = cli("deploy", *options)
    assert told.code == ExitCode.USAGE
    assert said in " ".join(told.err.replace("│", " ").split())
