"""Schedules over HTTP: reads, steering, and the events that tell of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from raflow.model import Role
from raflow.model.schedule import Cron, Interval, Overlap, Policy
from raflow.store import Store
from tests.server.conftest import Served, started
from tests.store.schedules import HOUR, change_row, deploy, each_second, put, rewind, spec
from tests.waiting import wait_for


def test_schedules_are_read(served: Served) -> None:
    deploy(served.store)
    rule = Cron("30 2 * * *", timezone="Europe/Paris")
    row = put(served.store, spec(rule, jitter=timedelta(minutes=5), region="eu"))
    [shown] = served.get("/schedules")["items"]
    assert shown == served.get(f"/schedules/{row.id}")
    assert served.get("/schedules?deployment=other")["items"] == []
    assert (shown["deployment"], shown["name"], shown["active"]) == ("nightly", "main", True)
    when = shown["when"]
    assert (when["words"], when["timezone"], when["jitter_seconds"]) == (
        "30 2 * * *",
        "Europe/Paris",
        300.0,
    )
    assert (when["rule"]["kind"], when["policy"]["overlap"]) == ("cron", "skip")
    assert when["parameters"] == {"region": "eu"}
    slots = served.get(f"/schedules/{row.id}/next?n=400")["items"]
    assert len(slots) == 400
    assert slots[0]["slot"] == shown["next_at"]
    assert slots[0]["begins_at"] > slots[0]["slot"]
    # Clocks are changed within any 400 days.
    assert any("does not exist on" in slot["words"] for slot in slots)
    assert served.ask("GET", "/schedules/none").status_code == 404
    assert served.ask("GET", "/schedules/none/slots").status_code == 404
    assert served.ask("GET", f"/schedules/{row.id}/next?n=0").status_code == 422


def test_a_schedule_is_paused_and_resumed(served: Served) -> None:
    deploy(served.store)
    row = put(served.store)
    path = f"/schedules/{row.id}"
    assert served.ask("POST", f"{path}/pause", role=Role.VIEWER).status_code == 403
    for _ in range(2):
        paused = served.ask("POST", f"{path}/pause", role=Role.OPERATOR)
        assert (paused.status_code, paused.json()["active"]) == (200, False)
    assert served.ask("POST", f"{path}/resume", role=Role.OPERATOR).json()["active"] is True
    found = served.events(f"kind=schedule.changed&object=schedule:{row.id}", 3)
    assert [(event["payload"]["what"], event["actor"]) for event in found] == [
        ("made", ""),
        ("paused", "operator"),
        ("resumed", "operator"),
    ]
    assert found[0]["deployment"] == "nightly"


def test_slots_and_why_some_start_nothing(served: Served) -> None:
    deploy(served.store)
    row = put(served.store, spec(Interval(HOUR), policy=Policy(window=2.5 * HOUR)))
    _, slots = rewind(served.store, row.id, 5 * 3600)
    served.store.schedules.decide_due()
    # Two or three slots are within the window, as the hour is young or old.
    count = len(served.get(f"/schedules/{row.id}/slots")["items"]) - 1
    found = served.get(f"/schedules/{row.id}/slots?limit={count}")["items"]
    assert [slot["action"] for slot in found] == ["skipped"] * (count - 1) + ["started"]
    before = found[-1]["slot"]
    [missed] = served.get(f"/schedules/{row.id}/slots?before={before}")["items"]
    assert (missed["action"], missed["flow_run_id"]) == ("missed", None)
    events = served.events("kind=slot.skipped", count)
    told = {(event["payload"]["action"], event["payload"]["slot"]) for event in events}
    assert told == {("missed", missed["slot"]), *(("skipped", slot["slot"]) for slot in found[:-1])}
    assert len(slots) == 5


def test_a_broken_schedule_says_so(served: Served) -> None:
    deploy(served.store)
    row = put(served.store)
    rewind(served.store, row.id, 3600)
    change_row(served.store, row.id, rule="{}")
    served.store.schedules.decide_due()
    shown = served.get(f"/schedules/{row.id}")
    assert (shown["active"], shown["when"], shown["next_at"]) == (False, None, None)
    assert shown["error"]
    [event] = served.events("kind=schedule.broken", 1)
    assert event["payload"] == {"name": "main", "error": shown["error"]}
    answer = served.ask("GET", f"/schedules/{row.id}/next")
    assert (answer.status_code, answer.json()["code"]) == (422, "raflow.schedule")


def test_a_server_starts_the_runs_of_schedules(tmp_path: Path) -> None:
    with (
        started(tmp_path) as server,
        Store.open(f"sqlite:///{tmp_path / 'raflow.db'}", log_dir=tmp_path) as store,
        server.client() as client,
    ):
        # By another process, as `raflow deploy` is one: the server finds it by looking.
        deploy(store)
        row = put(store, each_second(policy=Policy(overlap=Overlap.ALLOW_ALL)))
        wait_for(lambda: len(client.get("runs?trigger=schedule").json()["items"]) >= 2)
        assert client.post(f"schedules/{row.id}/pause").json()["active"] is False
        slots = client.get(f"schedules/{row.id}/slots").json()["items"]
        runs = client.get("runs?trigger=schedule").json()["items"]
        assert {slot["flow_run_id"] for slot in slots} == {run["id"] for run in runs}
        loops = client.get("health").json()["loops"]
        assert [(loop["name"], loop["is_well"], loop["error"]) for loop in loops] == [
            ("scheduler", True, ""),
            ("reaper", True, ""),
            ("janitor", True, ""),
        ]


def test_a_schedule_is_made_changed_and_removed_by_hand(served: Served) -> None:
    deploy(served.store)
    path = "/deployments/nightly/schedules/audit"
    rule = {"kind": "cron", "expression": "0 6 * * *", "timezone": "Europe/Paris"}
    assert served.ask("PUT", path, role=Role.OPERATOR, json={"rule": rule}).status_code == 403
    made = served.ask("PUT", path, role=Role.AUTHOR, json={"rule": rule})
    assert (made.status_code, made.json()["name"]) == (201, "audit")
    assert made.json()["when"]["words"] == "0 6 * * *"
    changed = served.ask("PUT", path, role=Role.AUTHOR, json={"rule": rule, "active": False})
    assert (changed.status_code, changed.json()["active"]) == (200, False)
    assert changed.json()["id"] == made.json()["id"]
    for wrong, code in (
        ({"rule": {"kind": "cron", "expression": "x"}}, "raflow.schedule"),
        ({"rule": rule, "polo": 1}, "raflow.invalid"),
    ):
        refused = served.ask("PUT", path, role=Role.AUTHOR, json=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    missing = served.ask(
        "PUT", "/deployments/none/schedules/a", role=Role.AUTHOR, json={"rule": rule}
    )
    assert missing.status_code == 404
    removed = served.ask("DELETE", f"/schedules/{made.json()['id']}", role=Role.AUTHOR)
    assert (removed.status_code, removed.json()) == (200, {"removed": 1})
    assert served.get("/schedules")["items"] == []
