"""The server as users run it: a process of its own, found by its home, ended by a signal."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from raflow import errors
from raflow.cli.doctor import Health, run_checks
from raflow.model import Limit, Role
from raflow.server import _run
from raflow.service import Service
from raflow.store import Store
from tests.server.conftest import Started, record, started

QUICK = 20.0
"""Seconds; alone on a machine it is there within two, and a request may wait for 25."""
SMALL = 150 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server with a run on record."""
    home = tmp_path_factory.mktemp("home")
    with Store.open(f"sqlite:///{home / 'raflow.db'}", log_dir=home / "logs") as store:
        record(store, "run-1")
        with started(home) as found:
            yield found


@pytest.fixture
def store(server: Started) -> Iterator[Store]:
    """The server's store, opened by another process."""
    home = server.home
    with Store.open(f"sqlite:///{home / 'raflow.db'}", log_dir=home / "logs") as opened:
        yield opened


def test_it_listens_on_loopback_and_is_found_by_its_home(server: Started) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert server.url in server.said[0]
    found = server.home / "server.json"
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    [listening] = [
        connection
        for connection in psutil.Process(server.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening.laddr.ip == "127.0.0.1"
    with server.client() as client:
        assert client.get("runs/run-1").json()["flow"] == "etl"
        assert client.get("health").json()["uptime_seconds"] > 0


def test_the_first_start_prints_a_link_that_signs_in_once(server: Started) -> None:
    link = server.said[1].partition(": ")[2].strip()
    page, _, code = link.partition("#code=")
    with httpx.Client() as browser:
        shown = browser.get(page)
        assert shown.status_code == 200
        sent = browser.post(f"{server.url}/api/v1/session", json={"code": code})
        assert sent.status_code == 201
        assert browser.get(f"{server.url}/api/v1/me").json()["role"] == "admin"
        assert browser.post(f"{server.url}/api/v1/session", json={"code": code}).status_code == 401


def test_another_link_for_whoever_owns_the_home(server: Started) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "raflow", "server", "link"],
        env=os.environ | {"RAFLOW_HOME": str(server.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    code = printed.partition("#code=")[2]
    assert printed.startswith(f"{server.url}/signin#")
    assert httpx.post(f"{server.url}/api/v1/session", json={"code": code}).status_code == 201


def test_a_second_server_of_the_same_home_is_refused(server: Started) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raflow.server", "--port", "0"],
        env=os.environ | {"RAFLOW_HOME": str(server.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert server.url in done.stderr


def test_the_doctor_looks_at_the_service(server: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.client() as client:
        made = client.post("tokens", json={"name": "bob", "role": Role.VIEWER.value}).json()
    monkeypatch.setenv("RAFLOW_API_URL", server.url)
    for token, access in ((server.token, Health.OK), (made["text"], Health.WARNING)):
        monkeypatch.setenv("RAFLOW_API_TOKEN", token)
        found = {check.name: check for check in run_checks(with_ray=False)}
        assert found["access"].health is access
        assert "database" not in found
        for name in ("service", "clock", "spool"):
            assert found[name].health is Health.OK, found[name]
    monkeypatch.setenv("RAFLOW_API_TOKEN", "rubbish")
    found = {check.name: check for check in run_checks(with_ray=False)}
    assert found["access"].health is Health.FAILED


def test_it_shows_no_token_to_a_network() -> None:
    for listen, what in (
        (_run.Listen(host="0.0.0.0", port=0), "without encryption"),
        (_run.Listen(host="::", port=0), "without encryption"),
        (_run.Listen(host="127.0.0.1", port=0, tls_cert="x.pem"), "belong together"),
    ):
        with pytest.raises(errors.ConfigError, match=what):
            listen.check()
    _run.Listen(host="0.0.0.0", port=0, tls_cert="x.pem", tls_key="x.key").check()
    _run.Listen(host="0.0.0.0", port=0, behind_proxy="10.0.0.1").check()
    _run.Listen(host="::1", port=0).check()
    nowhere = _run.Listen(host="203.0.113.7", port=1)
    with pytest.raises(errors.ConfigError, match="cannot listen"), _run._listening(nowhere):
        pass


def lines_of(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    event: dict[str, Any] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name in {"id", "event"}:
            event[name] = value
        elif name == "data":
            event["data"] = json.loads(value)
        elif not line and "data" in event:
            yield event
            event = {}


def test_a_stream_goes_on_where_it_was_cut_off(server: Started, store: Store) -> None:
    limits = Service(store, actor="me").limits
    accept = {"Accept": "text/event-stream"}
    with server.client() as client:
        last = client.get("events?limit=1000").json()["last_seq"]
        with client.stream("GET", f"events?after={last}&kind=limit.*", headers=accept) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            coming = lines_of(answer)
            limits.set(Limit(name="a", slots=1))
            first = next(coming)
            # By another process: the server finds it by looking.
            limits.set(Limit(name="b", slots=2))
            second = next(coming)
        assert (first["event"], first["data"]["object"]) == ("limit.changed", "limit:a")
        assert (second["data"]["object"], second["data"]["payload"]["slots"]) == ("limit:b", 2)
        limits.set(Limit(name="c", slots=3))
        resumed = accept | {"Last-Event-ID": first["id"]}
        with client.stream("GET", "events?kind=limit.*", headers=resumed) as answer:
            coming = lines_of(answer)
            assert [next(coming)["data"]["object"] for _ in range(2)] == ["limit:b", "limit:c"]
        bad = client.get("events", headers=accept | {"Last-Event-ID": "x"})
        assert (bad.status_code, bad.json()["code"]) == (400, "raflow.bad_cursor")


def test_many_streams_see_all_in_one_order(server: Started, store: Store) -> None:
    limits = Service(store, actor="me").limits
    accept = {"Accept": "text/event-stream"}
    seen: list[list[str]] = [[] for _ in range(5)]
    ready = threading.Barrier(6)

    def listen(mine: list[str]) -> None:
        with server.client() as client:
            path = f"events?after={last}&object=limit:many"
            with client.stream("GET", path, headers=accept) as answer:
                ready.wait(timeout=30)
                for event in lines_of(answer):
                    mine.append(event["id"])
                    if len(mine) == 30:
                        return

    with server.client() as client:
        last = client.get("events?limit=1000").json()["last_seq"]
        threads = [threading.Thread(target=listen, args=(mine,)) for mine in seen]
        for thread in threads:
            thread.start()
        ready.wait(timeout=30)
        for n in range(30):
            limits.set(Limit(name="many", slots=n))
        for thread in threads:
            thread.join(timeout=60)
        page = client.get(f"events?after={last}&object=limit:many").json()["items"]
    assert [[str(event["seq"]) for event in page]] * 5 == seen


def test_whoever_waits_for_an_event_gets_it_when_it_comes(server: Started, store: Store) -> None:
    limits = Service(store, actor="me").limits
    with server.client() as client:
        last = client.get("events?limit=1000").json()["last_seq"]
        later = threading.Timer(0.3, limits.set, [Limit(name="waited", slots=1)])
        later.start()
        found = client.get(f"events?after={last}&wait=20&object=limit:waited").json()
        assert [event["object"] for event in found["items"]] == ["limit:waited"]
        later.join()
        begun = time.monotonic()
        none = client.get(f"events?after={found['last_seq']}&wait=0.2&object=limit:none").json()
        assert none == {"items": [], "last_seq": found["last_seq"], "missed": False}
        assert time.monotonic() - begun < QUICK


def test_a_stream_ends_when_its_token_does(server: Started) -> None:
    accept = {"Accept": "text/event-stream"}
    with server.client() as client:
        made = client.post("tokens", json={"name": "ann", "role": Role.VIEWER.value}).json()
        theirs = {"Authorization": f"Bearer {made['text']}"} | accept
        with httpx.stream(
            "GET", f"{server.url}/api/v1/events", headers=theirs, timeout=30
        ) as answer:
            assert client.delete(f"tokens/{made['id']}").status_code == 204
            assert [event["data"]["object"] for event in lines_of(answer)] == [
                f"token:{made['id']}"
            ]


def test_it_ends_at_once_with_streams_open_and_takes_its_token_along(tmp_path: Path) -> None:
    with started(tmp_path) as found:
        with Store.open(f"sqlite:///{tmp_path / 'raflow.db'}", log_dir=tmp_path) as store:
            assert len(store.tokens.list()) == 1
        accept = {"Accept": "text/event-stream"}
        with found.client() as client, client.stream("GET", "events", headers=accept) as answer:
            begun = time.monotonic()
            psutil.Process(found.pid).terminate()
            assert list(lines_of(answer)) == []
            psutil.Process(found.pid).wait(timeout=60)
            assert time.monotonic() - begun < QUICK
    assert not (tmp_path / "server.json").exists()
    with Store.open(f"sqlite:///{tmp_path / 'raflow.db'}", log_dir=tmp_path) as store:
        assert store.tokens.list() == []


def test_a_killed_server_leaves_no_token_behind_once_another_has_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raflow.server", "--port", "0"]
    environment = os.environ | {"RAFLOW_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        left = json.loads((tmp_path / "server.json").read_text())
        killed.kill()
    with started(tmp_path) as found:
        with found.client() as client:
            ids = [token["id"] for token in client.get("tokens").json()["items"]]
            assert ids == [json.loads((tmp_path / "server.json").read_text())["token_id"]]
        assert left["token_id"] not in ids


WALK = """
import json, os, signal, sys, threading, time, urllib.request
from pathlib import Path
from raflow import config
from raflow.server import _run

def walk():
    home = config.load().home
    while not (home / "server.json").exists():
        time.sleep(0.01)
    told = json.loads((home / "server.json").read_text())
    headers = {"Authorization": "Bearer " + told["token"]}
    for path in ("runs", "flows", "events", "limits", "cache", "input-requests", "version"):
        asked = urllib.request.Request(told["url"] + "/api/v1/" + path, headers=headers)
        urllib.request.urlopen(asked, timeout=60).read()
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    sys.stdout.write(json.dumps([memory, sorted(sys.modules)]) + "\\n")
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=walk).start()
_run.serve(config.load(), _run.Listen(host="127.0.0.1", port=0))
"""


def test_it_loads_no_ray_and_no_user_code_and_stays_small(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'raflow.db'}", log_dir=tmp_path):
        pass
    done = subprocess.run(
        [sys.executable, "-c", WALK],
        env=os.environ | {"RAFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    memory, modules = json.loads(done.stdout.splitlines()[-1])
    loaded = set(modules)
    tops = {name.partition(".")[0] for name in modules}
    assert "uvicorn" in tops
    assert (
        tops & {"ray", "cloudpickle", "alembic", "jsonschema", "typer", "rich", "fsspec"} == set()
    )
    parts = {name.split(".")[1] for name in loaded if name.startswith("raflow.")}
    assert parts & {"cli", "define", "execute", "results", "runtime"} == set()
    assert memory < SMALL
