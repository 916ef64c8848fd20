"""The record over HTTP: batches in, once and in order; what runs ask; and what strangers send."""

from __future__ import annotations

import dataclasses
import random
import threading
from typing import Any

import httpx
import pytest
import zstandard

from raflow import model
from raflow.model import Role, StateName, TokenKind, wire
from raflow.service import Service, _ingest
from raflow.store import Store
from tests.server.conftest import Served
from tests.store import records

RUN = records.RUN


class Recording:
    """Whoever records a run."""

    def __init__(self, served: Served, run_id: str = RUN) -> None:
        begun = served.ask("POST", "/record", role=Role.AUTHOR, json={"run_id": run_id})
        assert begun.status_code == 201, begun.text
        self.served = served
        self.run_id = run_id
        self.token: str = begun.json()["token"]

    def ask(self, method: str, path: str, run_id: str = "", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        path = f"/record/{run_id or self.run_id}{path}"
        return self.served.ask(method, path, role=None, headers=headers, **more)

    def send(self, data: bytes, *, run_id: str = "", **headers: str) -> httpx.Response:
        found = {"Content-Type": wire.BATCH_MEDIA_TYPE} | headers
        return self.ask("POST", "/batches", run_id, content=data, headers=found)


def packed(*rows: model.Record, logs: tuple[bytes, ...] = (), **more: Any) -> bytes:
    parts = model.parts_of(records.batch(*rows, **more))
    return model.encode_batch(dataclasses.replace(parts, logs=logs))


FIRST = (
    records.flow_version(),
    dataclasses.replace(records.flow_run(), pid=7, host="there"),
)


def log_segment(blob: bytes, number: int = 0) -> model.LogSegment:
    lines = model.decode_log(blob)
    return model.LogSegment(
        flow_run_id=RUN,
        number=number,
        key=None,
        attempt=0,
        file="",
        offset=0,
        length=len(blob),
        lines=len(lines),
        first_at=lines[0].at,
        last_at=lines[-1].at,
        level=20,
    )


def test_a_batch_is_written_once_however_often_it_is_sent(served: Served) -> None:
    recording = Recording(served)
    blob = model.encode_log([model.LogLine(1.0, 20, "app", "it begins")])
    data = packed(*FIRST, log_segment(blob), logs=(blob,))
    assert recording.send(data).json() == {"applied": True}
    size = sum(file.stat().st_size for file in (served.app.state.home / "logs").iterdir())
    assert recording.send(data).json() == {"applied": False}
    assert size == sum(f.stat().st_size for f in (served.app.state.home / "logs").iterdir())
    (segment,) = served.store.log_segments(RUN)
    assert served.store.read_log(segment)[0].text == "it begins"
    rows: list[model.Record] = [
        records.task_run(0),
        records.block(0, model.Chunk(1, 0, 3, 1)),
        records.mapped(1, 3),
    ]
    assert recording.send(packed(*rows, seq=1)).json() == {"applied": True}
    assert [run.key.node for run in served.store.task_runs(RUN)] == [0, 1, 1, 1]
    assert served.store.leases.get(RUN) is not None


def test_who_was_replaced_is_refused(served: Served) -> None:
    recording = Recording(served)
    recording.send(packed(*FIRST))
    taken = recording.ask(
        "POST",
        "/lease/begin",
        json={"host": "h", "pid": 2, "process_started": 1, "seconds": 9, "force": True},
    )
    assert taken.json() == {"incarnation": 2}
    answer = recording.send(packed(records.task_run(0), seq=1))
    assert (answer.status_code, answer.json()["code"]) == (409, "raflow.fenced")
    renewal = {"incarnation": 1, "seconds": 9}
    assert recording.ask("POST", "/lease", json=renewal).json()["code"] == "raflow.fenced"
    assert recording.ask("GET", "/requests?incarnation=1").json()["fenced"] is True
    assert recording.send(packed(records.task_run(0), seq=1, incarnation=2)).is_success


def test_a_token_is_good_for_its_run_and_the_subflows_of_that_alone(one: Served) -> None:
    mine, other = Recording(one), Recording(one, "another")
    mine.send(packed(*FIRST))
    theirs = packed(records.flow_version(), records.flow_run("another"), flow_run_id="another")
    assert mine.send(theirs, run_id="another").status_code == 404
    assert mine.send(theirs).status_code == 422  # sent as a batch of the own run
    assert other.send(theirs).is_success
    assert mine.ask("GET", "/run", "another").status_code == 404
    assert mine.ask("GET", "/run", "nothing").status_code == 404
    child = records.flow_run("child", parent_id=RUN, parent_node=1)
    assert other.send(packed(child, flow_run_id="child"), run_id="child").status_code == 404
    assert mine.send(packed(child, flow_run_id="child"), run_id="child").is_success
    assert mine.ask("GET", "/run", "child").json()["parent_id"] == RUN
    assert other.ask("GET", "/run", "child").status_code == 404
    assert one.ask("GET", "/record/child/run").status_code == 403  # not even an admin
    headers = {"Authorization": f"Bearer {mine.token}"}  # nor may it do anything else
    assert one.ask("GET", "/runs", role=None, headers=headers).status_code == 403
    wrong = dataclasses.replace(records.flow_run(), flow="other")
    assert mine.send(packed(wrong, seq=1)).status_code == 422
    assert mine.send(packed(records.flow_version(flow="other"), seq=1)).status_code == 422
    foreign = {"holder": "another/1/0"}
    assert mine.ask("POST", "/limits/release", json=foreign).status_code == 403


def test_what_is_no_batch_is_refused_and_harms_nobody(served: Served) -> None:
    recording = Recording(served)
    early = recording.send(packed(records.task_run(0)))
    assert (early.status_code, early.json()["code"]) == (422, "raflow.bad_batch")
    good = packed(*FIRST, records.block(0, model.Chunk(0, 0, 3, 1)))
    dice = random.Random(7)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(dice.randrange(1, 8)):
            bad[dice.randrange(len(bad))] = dice.randrange(256)
        assert recording.send(bytes(bad[: dice.randrange(1, len(bad))])).status_code == 422
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    header = b"RFB1" + len(bomb).to_bytes(4, "little") + b"\x01"
    assert recording.send(header + bomb).status_code == 422
    huge = dataclasses.replace(records.flow_run(), parent_node=2**62, pid=2**62)
    assert recording.send(packed(huge)).status_code in {200, 422}  # as the database has it
    assert recording.send(good).is_success or recording.send(good).json() == {"applied": False}


def test_only_batches_that_are_not_too_large_are_read(one: Served) -> None:
    recording = Recording(one)
    assert recording.send(packed(*FIRST), **{"Content-Type": "text/plain"}).status_code == 415
    assert recording.send(packed(*FIRST), **{"Content-Encoding": "gzip"}).status_code == 415
    assert recording.send(b"x", **{"Content-Length": "99999999"}).status_code == 413

    async def endless() -> Any:
        for _ in range(40):
            yield bytes(1 << 20)

    headers = {"Content-Type": wire.BATCH_MEDIA_TYPE}
    assert recording.ask("POST", "/batches", content=endless(), headers=headers).status_code == 413
    assert recording.send(packed(*FIRST)).is_success


def test_requests_are_heard_at_once(one: Served) -> None:
    recording = Recording(one)
    recording.send(packed(*FIRST))
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.append(recording.ask("GET", "/requests?wait=25").json())
    )
    waiting.start()
    one.ask("POST", f"/runs/{RUN}/cancel", json={"message": "enough"})
    waiting.join(20)
    (request,) = found[0]["requests"]
    assert (request["kind"], request["message"]) == ("cancel", "enough")
    told = recording.ask("POST", f"/requests/{request['id']}/answered", json={"outcome": "taken"})
    assert told.is_success
    assert recording.ask("GET", "/requests").json()["requests"] == []
    assert recording.ask("POST", "/requests/77/answered", json={"outcome": "x"}).status_code == 404


def test_runs_of_deployments_are_taken_over_by_workers_only(one: Served) -> None:
    from tests.store import orders

    (ordered,) = one.store.work.order([orders.order("ordered")])
    recording = Recording(one, ordered.flow_run_id)
    wish = {"host": "h", "pid": 2, "process_started": 1, "seconds": 9}
    assert recording.ask("POST", "/lease/begin", json=wish).json()["code"] == "raflow.resume"


def test_what_does_not_fit_is_told(one: Served) -> None:
    recording = Recording(one)
    recording.send(packed(*FIRST))
    for path, body in {
        "/lease": {"incarnation": 10**30, "seconds": 1},
        "/lease/begin": {"host": "h"},
        "/limits/renew": {"seconds": "x"},
        "/limits/acquire": {"seconds": 1, "request": {"holder": 1}},
        "/cache/find": {"keys": ["a"], "more": 1},
        "/processes": [],
    }.items():
        assert recording.ask("POST", path, json=body).status_code == 422, path
    assert one.ask("POST", "/record", role=Role.AUTHOR, json={}).status_code == 422
    missing = one.ask("POST", "/record", role=Role.AUTHOR, json={"find": "nothing"})
    assert missing.status_code == 404
    assert recording.ask("POST", "/inputs/0").status_code == 404


# --- Together ------------------------------------------------------------------------------------


def test_what_arrives_together_is_written_together(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    apply_many = Store.apply_many

    def counted(self: Store, batches: Any) -> Any:
        sizes.append(len(batches))
        return apply_many(self, batches)

    monkeypatch.setattr(Store, "apply_many", counted)
    ingest = _ingest.Ingest(one.store, one.app.state.signals, one.app.state.families)
    # Its thread is kept from beginning until all have come.
    with monkeypatch.context() as held:
        held.setattr(ingest, "_start", lambda: None)
        futures = []
        for number in range(10):
            run_id = f"run-{number}"
            run = records.flow_run(run_id)
            data = packed(records.flow_version(), run, flow_run_id=run_id)
            futures.append(ingest.take(run_id, run_id, data))
    ingest._start()
    assert [future.result(20) for future in futures] == [True] * 10
    assert sizes == [10]
    ingest.close()


def test_more_than_can_be_borne_is_refused_for_now(one: Served) -> None:
    ingest = one.app.state.ingest
    ingest.enter(_ingest._MOST_BYTES)
    answer = Recording(one).send(packed(*FIRST))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    ingest.leave(_ingest._MOST_BYTES)
    assert Recording(one).send(packed(*FIRST)).is_success


def test_a_token_that_is_revoked_ends_a_poll(one: Served) -> None:
    recording = Recording(one)
    recording.send(packed(*FIRST))
    token = one.store.tokens.find(recording.token)
    assert token is not None
    assert (token.kind, token.scope) == (TokenKind.RUN, RUN)
    Service(one.store, actor="test").tokens.revoke(token.id)
    one.app.state.directory.forget()
    assert recording.ask("GET", "/requests?wait=20").status_code == 401


def test_everything_reads_back_as_it_was_written(served: Served) -> None:
    recording = Recording(served)
    error = model.ErrorInfo(type="E", message="\udc80 no", traceback="", pickled=b"\x00\xff")
    failed = dataclasses.replace(records.task_run(0), error=error)
    run = dataclasses.replace(
        records.flow_run(), parameters={"huge": 2**80, "half": "\udc80", "x": [1.5, None]}
    )
    recording.send(packed(records.flow_version(), run, failed, records.node(0)))
    kept = served.store
    found = wire.load_json(model.FlowRun, recording.ask("GET", "/run").content)
    assert found.parameters["huge"] == 2**80
    rows = wire.load_json(list[model.TaskRun], recording.ask("GET", "/rows").content)
    assert rows == kept.task_runs(RUN)
    numbers = wire.load_json(model.RunNumbers, recording.ask("GET", "/numbers").content)
    assert numbers == kept.recall.numbers(RUN)
    graph = model.decode_graph(recording.ask("GET", "/nodes").content)
    assert [node.id for node in graph.read_nodes()] == [0]
    assert recording.ask("GET", "/states").json() == []
    assert kept.flow_run(RUN).state.name is StateName.RUNNING
