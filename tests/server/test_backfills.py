"""Backfills over HTTP."""

from __future__ import annotations

from raflow.model import Role
from tests.server.conftest import Served
from tests.store.schedules import deploy, put

DAY = "2026-01-01"


def test_a_backfill_is_made_and_steered(served: Served) -> None:
    deploy(served.store)
    put(served.store)
    wanted = {
        "deployment": "nightly",
        "schedule": "main",
        "since": f"{DAY}T00:00:00Z",
        "until": f"{DAY}T03:00:00Z",
        "concurrency": 2,
    }
    preview = served.ask("POST", "/backfills/preview", role=Role.VIEWER, json=wanted).json()
    assert (preview["slots"], preview["runs"], len(preview["first"])) == (4, 4, 4)
    assert served.ask("POST", "/backfills", role=Role.VIEWER, json=wanted).status_code == 403
    answer = served.ask("POST", "/backfills", role=Role.OPERATOR, json=wanted)
    assert answer.status_code == 201
    made = answer.json()
    path = f"/backfills/{made['id']}"
    assert (made["actor"], made["counts"]) == ("operator", {"waiting": 4})
    assert served.get("/backfills?deployment=nightly")["items"] == [served.get(path)]
    served.store.backfills.take()
    slots = served.get(f"{path}/slots?outcome=waiting")["items"]
    assert [slot["slot"] for slot in slots] == [f"{DAY}T02:00:00Z", f"{DAY}T03:00:00Z"]
    assert len(served.get("/runs?trigger=backfill")["items"]) == 2
    states = [
        served.ask("POST", f"{path}/{action}").json()["state"]
        for action in ("pause", "resume", "cancel", "retry-failed")
    ]
    assert states == ["paused", "running", "cancelled", "running"]
    found = served.events("kind=backfill.state", 5)
    assert [event["payload"]["state"] for event in found] == ["running", *states]
    assert {event["object"] for event in found} == {f"backfill:{made['id']}"}


def test_what_cannot_be_is_told(served: Served) -> None:
    assert served.ask("GET", "/backfills/none").status_code == 404
    assert served.ask("POST", "/backfills/none/cancel").status_code == 404
    wanted = {"deployment": "none", "since": f"{DAY}T00:00:00Z", "until": f"{DAY}T00:00:00Z"}
    assert served.ask("POST", "/backfills", json=wanted).status_code == 404
    deploy(served.store)
    found = served.ask("POST", "/backfills", json={**wanted, "deployment": "nightly"})
    assert (found.status_code, found.json()["code"]) == (422, "raflow.schedule")
