"""Deployments, their code, their runs, pools and workers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raflow.bundles import Packed, pack
from raflow.model import Role, Stage, StateName
from tests.server.conftest import Served
from tests.store.orders import claim, record, stage_of, worker

SCHEMA = {
    "properties": {"region": {"type": "string", "default": "eu"}, "day": {"type": "integer"}},
    "type": "object",
}


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    project = tmp_path / "project"
    project.mkdir()
    (project / "etl.py").write_text("print('never run here')\n")
    return pack(project)


def wanted(packed: Packed, **more: Any) -> dict[str, Any]:
    return {
        "flow": "etl",
        "entrypoint": "etl.py:etl",
        "bundle": packed.manifest.digest,
        "fingerprint": "f1",
        "parameter_schema": SCHEMA,
        **more,
    }


def send(served: Served, packed: Packed, **more: Any) -> Any:
    content = b"".join(packed.chunks())
    return served.ask("PUT", f"/bundles/{packed.manifest.digest}", content=content, **more)


def deployed(served: Served, packed: Packed, name: str = "nightly", **more: Any) -> Any:
    assert send(served, packed).status_code == 200
    answer = served.ask("PUT", f"/deployments/{name}", json=wanted(packed, **more))
    assert answer.status_code == 201, answer.text
    return answer.json()["deployment"]


def codes(served: Served, method: str, path: str, **more: Any) -> tuple[int, str]:
    answer = served.ask(method, path, **more)
    return answer.status_code, answer.json()["code"]


# --- Code -----------------------------------------------------------------------------------------


def test_code_is_kept_under_its_digest_and_comes_back_as_it_was(
    one: Served, packed: Packed
) -> None:
    path = f"/bundles/{packed.manifest.digest}"
    assert codes(one, "GET", path) == (409, "raflow.bundle_missing")
    assert codes(one, "GET", f"{path}/archive") == (409, "raflow.bundle_missing")
    sent = send(one, packed, role=Role.AUTHOR)
    assert (sent.status_code, sent.json()["files"]) == (200, 1)
    assert one.get(path) == sent.json()
    assert one.ask("GET", f"{path}/archive").content == b"".join(packed.chunks())
    unpacked = [file for file in (one.app.state.home / "bundles").rglob("*") if "etl" in file.name]
    assert unpacked == []


def test_code_that_is_not_what_its_name_says_is_refused_and_not_kept(
    one: Served, packed: Packed
) -> None:
    other = f"/bundles/{'0' * 64}"
    content = b"".join(packed.chunks())
    assert codes(one, "PUT", other, content=content) == (422, "raflow.bundle_mismatch")
    assert codes(one, "PUT", other, content=b"nothing") == (422, "raflow.bundle_refused")
    assert codes(one, "PUT", other, content=content[:-9])[0] == 422
    assert codes(one, "GET", other) == (409, "raflow.bundle_missing")
    assert codes(one, "PUT", "/bundles/etc", content=content) == (422, "raflow.invalid")
    large = {"Content-Length": str(1 << 40)}
    assert codes(one, "PUT", other, content=content, headers=large) == (413, "raflow.too_large")


# --- Deployments ----------------------------------------------------------------------------------


def test_a_deployment_is_made_changed_compared_and_rolled_back(
    served: Served, packed: Packed
) -> None:
    path = "/deployments/nightly"
    assert codes(served, "PUT", path, json=wanted(packed)) == (409, "raflow.bundle_missing")
    rule = {"kind": "cron", "expression": "30 2 * * *", "timezone": "Europe/Paris"}
    schedules = [{"name": "main", "rule": rule, "jitter_seconds": 60}]
    hidden: dict[str, Any] = {"environment": {"SECRET": "hush"}, "schedules": schedules}
    first = deployed(served, packed, **hidden)
    assert (first["version"], first["spec"]["environment"]) == (1, ["SECRET"])
    assert served.get("/schedules?deployment=nightly")["items"][0]["when"]["rule"]["kind"] == "cron"
    again = served.ask("PUT", path, json=wanted(packed, **hidden))
    assert (again.status_code, again.json()["made_version"]) == (200, False)
    changed = wanted(packed, **hidden | {"environment": {"SECRET": "x"}, "tags": ["daily"]})
    stale = {"If-Match": '"r99"'}
    assert codes(served, "PUT", path, json=changed, headers=stale) == (412, "raflow.stale")
    match = {"If-Match": served.ask("GET", path).headers["etag"]}
    assert served.ask("PUT", path, json=changed, headers=match).status_code == 201
    versions = served.get(f"{path}/versions")["items"]
    assert [(one["number"], one["actor"]) for one in versions] == [(2, "admin"), (1, "admin")]
    assert served.get(f"{path}/versions/1")["schedules"][0]["name"] == "main"
    diff = served.get(f"{path}/diff")
    assert {one["path"]: one["after"] for one in diff["settings"]} == {
        "environment.SECRET": "***",
        "tags": ["daily"],
    }
    assert diff["files"] == []
    back = served.ask("POST", f"{path}/rollback", json={"version": 1})
    assert (back.json()["version"], back.json()["spec"]["tags"]) == (1, [])
    assert codes(served, "POST", f"{path}/rollback", json={"version": 9})[0] == 404


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"parameters": {"colour": 1}}, "raflow.parameters"),
        ({"parameter_schema": {"type": 7}}, "raflow.definition"),
        ({"parameter_schema": {"$ref": "http://evil.example/x"}}, "raflow.definition"),
        ({"schedules": [{"name": "a", "rule": {"kind": "cron"}}]}, "raflow.schedule"),
        ({"schedules": [{"name": "A!", "rule": {"kind": "interval"}}]}, "raflow.schedule"),
        ({"concurrency": 0}, "raflow.invalid"),
    ],
)
def test_what_could_never_run_is_refused(
    one: Served, packed: Packed, more: dict[str, Any], code: str
) -> None:
    send(one, packed)
    asked = wanted(packed, **more)
    assert codes(one, "PUT", "/deployments/nightly", json=asked) == (422, code)
    assert one.get("/deployments")["items"] == []


def test_a_name_that_is_none_is_refused(one: Served, packed: Packed) -> None:
    send(one, packed)
    asked = wanted(packed)
    assert codes(one, "PUT", "/deployments/No%20Name", json=asked) == (422, "raflow.definition")


def test_removing_a_deployment_cancels_what_waits(one: Served, packed: Packed) -> None:
    deployed(one, packed)
    run = one.ask("POST", "/deployments/nightly/runs", json={}).json()["id"]
    assert one.ask("DELETE", "/deployments/nightly").json() == {"cancelled": 1}
    assert one.get(f"/runs/{run}")["state"]["name"] == "Cancelled"
    assert codes(one, "GET", "/deployments/nightly") == (404, "raflow.not_found")


# --- Runs -----------------------------------------------------------------------------------------


def test_a_run_is_ordered_once_for_each_key(served: Served, packed: Packed) -> None:
    deployed(served, packed, tags=["etl"])
    path = "/deployments/nightly/runs"
    keyed = {"Idempotency-Key": "monday"}
    asked = {"parameters": {"region": "us"}, "name": "mine", "tags": ["by-hand"]}
    first = served.ask("POST", path, json=asked, headers=keyed, role=Role.OPERATOR)
    again = served.ask("POST", path, json=asked, headers=keyed)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = asked | {"parameters": {"region": "eu"}}
    conflict = codes(served, "POST", path, json=other, headers=keyed)
    assert conflict == (409, "raflow.idempotency_conflict")
    run = served.ask("GET", first.headers["location"].removeprefix("/api/v1")).json()
    assert (run["name"], run["tags"]) == ("mine", ["etl", "by-hand"])
    assert run["origin"]["deployment"] == "nightly"
    assert run["origin"]["actor"] == "operator"
    listed = served.get("/runs?deployment=nightly")["items"]
    assert [(one["id"], one["pool"]) for one in listed] == [(run["id"], "default")]


def test_a_run_with_parameters_that_the_flow_does_not_take_is_refused(
    one: Served, packed: Packed
) -> None:
    deployed(one, packed)
    path = "/deployments/nightly/runs"
    for given in ({"colour": 1}, {"day": "today"}):
        assert codes(one, "POST", path, json={"parameters": given}) == (422, "raflow.parameters")
    assert codes(one, "POST", "/deployments/nightl/runs", json={})[0] == 404
    assert one.get("/runs")["items"] == []


def test_a_schema_without_an_end_makes_nobody_fail(one: Served, packed: Packed) -> None:
    around = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    deployed(one, packed, parameter_schema=around)
    ordered = codes(one, "POST", "/deployments/nightly/runs", json={})
    assert ordered == (422, "raflow.parameters")


def test_why_a_run_waits_and_that_it_goes_on_later(one: Served, packed: Packed) -> None:
    deployed(one, packed)
    assert one.ask("POST", "/deployments/nightly/pause", role=Role.OPERATOR).json()["paused"]
    one.ask("POST", "/pools/default/pause")
    run = one.ask("POST", "/deployments/nightly/runs", json={}).json()["id"]
    told = one.get(f"/runs/{run}/why")["waits"]
    assert [wait["code"] for wait in told] == ["deployment_paused", "pool_paused", "no_worker"]
    assert told[1]["changes"][0]["command"] == "raflow pools resume default"
    assert not one.ask("POST", "/deployments/nightly/resume").json()["paused"]
    assert not one.ask("POST", "/pools/default/resume").json()["paused"]
    assert [wait["code"] for wait in one.get(f"/runs/{run}/why")["waits"]] == ["no_worker"]
    (taken,) = claim(one.store)
    record(one.store, taken, StateName.RUNNING)
    assert one.get(f"/runs/{run}/why")["waits"] == []
    assert codes(one, "POST", f"/runs/{run}/resume") == (409, "raflow.run_is_alive")
    record(one.store, taken, StateName.FAILED, ahead=1)
    assert one.ask("POST", f"/runs/{run}/resume").status_code == 202
    assert stage_of(one.store, run) is Stage.WAITING


# --- Pools and workers ----------------------------------------------------------------------------


def test_pools_are_made_changed_and_removed(served: Served) -> None:
    made = served.ask("PUT", "/pools/gpu", json={"concurrency": 2, "description": "two cards"})
    assert (made.json()["concurrency"], made.json()["description"]) == (2, "two cards")
    served.ask("POST", "/pools/gpu/pause")
    changed = served.ask("PUT", "/pools/gpu", json={"concurrency": None}).json()
    assert (changed["concurrency"], changed["description"]) == (None, "two cards")
    assert changed["paused"]
    assert [pool["name"] for pool in served.get("/pools")["items"]] == ["gpu"]
    assert served.ask("DELETE", "/pools/gpu").status_code == 204
    assert codes(served, "GET", "/pools/gpu") == (404, "raflow.not_found")
    assert codes(served, "POST", "/pools/gpu/pause") == (404, "raflow.not_found")


def test_workers_are_told_to_end_by_id_or_by_name(one: Served) -> None:
    for number in ("w1", "w2"):
        one.store.work.worker_seen(worker(number), seconds=60)
    assert [found["id"] for found in one.get("/workers?pool=default")["items"]] == ["w1", "w2"]
    drained = one.ask("POST", "/workers/w1/drain").json()["items"]
    assert [(found["id"], found["draining"]) for found in drained] == [("w1", True)]
    assert [found["draining"] for found in one.get("/workers")["items"]] == [True, False]
    assert codes(one, "POST", "/workers/w3/drain") == (404, "raflow.not_found")
