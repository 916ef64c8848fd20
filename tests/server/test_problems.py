"""When something fails the answer is a problem document, with a code that stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from raflow import errors
from raflow.server import _problems
from raflow.service import Upkeep, _loops
from raflow.store import Store
from tests.server.conftest import Served, serving

OF_OTHERS = {
    "raflow.backend",
    "raflow.cache_key",
    "raflow.error",
    "raflow.invalid_transition",
    "raflow.skip",
}
"""What no verb of the service raises, besides what runs and their tasks end with."""
FAMILIES = (errors.RunError, errors.BackendError, errors.SerializationError)


def test_a_database_that_is_away_is_told_apart_from_a_bug(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise errors.StoreError("The database is away.")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    assert one.ask("GET", "//readyz", role=None).status_code == 200
    one.token()
    monkeypatch.setattr(one.store.feed, "last", away)
    ready = one.ask("GET", "//readyz", role=None)
    assert (ready.status_code, ready.json()["code"]) == (503, "raflow.store")
    assert ready.headers["retry-after"] == "1"
    # Which database that is, where and whose, is not for strangers.
    assert "away" not in ready.text
    assert "away" in one.ask("GET", "/health").text
    assert one.ask("GET", "//healthz", role=None).status_code == 200
    monkeypatch.setattr(one.store, "flows", broken)
    bug = one.ask("GET", "/flows")
    assert (bug.status_code, bug.json()["code"]) == (500, "raflow.internal")
    assert "secret" not in bug.text
    assert bug.headers["x-request-id"] in bug.json()["detail"]
    monkeypatch.setattr(one.store.tokens, "find", away)
    one.app.state.directory.forget()
    unknown = one.ask("GET", "/me")
    assert unknown.status_code == 503
    assert "away" not in unknown.text


def test_a_full_disk_is_not_ready(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from raflow.server.routes import _health

    monkeypatch.setattr(_health, "_NEEDED_BYTES", 1 << 62)
    answer = one.ask("GET", "//readyz", role=None)
    assert (answer.status_code, answer.json()["code"]) == (503, "raflow.disk_full")


def test_what_is_asked_in_the_wrong_way_is_told(one: Served) -> None:
    answer = one.ask("PATCH", "/flows")
    assert (answer.status_code, answer.json()["code"]) == (405, "raflow.method_not_allowed")
    answer = one.ask("GET", "/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "raflow.not_found")


def test_every_status_belongs_to_an_error_of_raflow() -> None:
    codes = {kind.code for kind in vars(errors).values() if hasattr(kind, "code")}
    assert set(_problems._STATUS) <= codes


def test_a_loop_that_is_stuck_makes_the_server_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'raflow.db'}"
    with (
        Store.open(url, log_dir=tmp_path / "logs") as store,
        Upkeep(store) as upkeep,
        serving(store, tmp_path, upkeep) as found,
    ):
        assert found.ask("GET", "//readyz", role=None).status_code == 200
        loops = found.get("/health")["loops"]
        assert [(loop["name"], loop["is_well"]) for loop in loops] == [
            ("scheduler", True),
            ("reaper", True),
            ("janitor", True),
        ]
        monkeypatch.setattr(_loops, "SILENT_SECONDS", -1.0)
        ready = found.ask("GET", "//readyz", role=None)
        assert (ready.status_code, ready.json()["code"]) == (503, "raflow.loop_stuck")
        assert not found.get("/health")["loops"][0]["is_well"]
