"""Runs of deployments for workers, over HTTP: each is given out once, and taken back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from raflow.bundles import Packed
from raflow.model import (
    DeploymentVersion,
    Poll,
    Polled,
    Role,
    Stage,
    StateName,
    TokenKind,
    Work,
    wire,
)
from raflow.service import PoolWork, Service, _pool_work
from tests.server.conftest import Served
from tests.server.test_deployments import deployed, packed
from tests.store.orders import record, stage_of, worker
from tests.waiting import wait_for

__all__ = ["packed"]

SECRETS: dict[str, Any] = {"environment": {"SECRET": "hush"}}


class Hand:
    """A worker that has a token, and does by hand what a worker does."""

    def __init__(self, served: Served, *, scope: str = "default", name: str = "w1") -> None:
        self.served = served
        tokens = Service(served.store, actor="test").tokens
        self.made = tokens.make(name=name, kind=TokenKind.WORKER, scope=scope)
        self.info = worker(name)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.made.text}", "Content-Type": "application/json"}

    def ask(self, claim: str = "c1", *, most: int = 5, waiting: tuple[str, ...] = ()) -> Poll:
        return Poll(info=self.info, most=most, claim=claim, waiting=waiting)

    def post(self, path: str, body: object) -> httpx.Response:
        content = wire.dump_json(body)
        return self.served.ask("POST", path, role=None, headers=self.headers, content=content)

    def take(self, claim: str = "c1") -> Polled:
        answer = self.post("/dispatch/poll", self.ask(claim))
        assert answer.status_code == 200, answer.text
        return wire.load_json(Polled, answer.content)

    def waits(self, claim: str = "c1") -> Future[httpx.Response]:
        """Ask for runs, and wait for some; return once the server knows."""
        content = wire.dump_json(self.ask(claim))
        send = functools.partial(
            self.served.send,
            "POST",
            "/dispatch/poll?wait=25",
            headers=self.headers,
            content=content,
            timeout=60,
        )
        found: Future[httpx.Response] = self.served.portal.start_task_soon(send)
        wait_for(lambda: any(one.id == self.info.id for one in self.served.store.work.workers()))
        return found

    def done(self, path: str, body: object) -> bool:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        return wire.load_json(wire.Done, answer.content).done


@pytest.fixture
def only_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself for what he was not woken for."""
    monkeypatch.setattr(_pool_work, "_LOOK_SECONDS", 1e6)


def ordered(served: Served, name: str = "nightly", **more: Any) -> str:
    answer = served.ask("POST", f"/deployments/{name}/runs", json={"parameters": {"day": 1}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def got(waiting: Future[httpx.Response]) -> Polled:
    answer = waiting.result(60)
    assert answer.status_code == 200, answer.text
    return wire.load_json(Polled, answer.content)


# --- Taking runs ----------------------------------------------------------------------------------


def test_a_run_goes_to_the_worker_that_waits_with_all_that_is_needed(
    served: Served, packed: Packed, only_wakes: None
) -> None:
    deployed(served, packed, **SECRETS)
    hand = Hand(served)
    waiting = hand.waits()
    run = ordered(served)
    [claim] = got(waiting).claims
    assert (claim.flow_run.id, claim.work, claim.incarnation) == (run, Work.RUN, 1)
    assert claim.flow_run.parameters == {"day": 1}
    origin = claim.flow_run.origin
    assert origin is not None
    assert (origin.deployment, origin.pool) == ("nightly", "default")
    [known] = served.store.work.workers()
    assert known.token_id == hand.made.token.id

    told = served.ask("GET", f"/dispatch/{run}/version", role=None, headers=hand.headers)
    version = wire.load_json(DeploymentVersion, told.content)
    assert version == served.store.deployments.version("nightly", 1)
    assert version.spec.environment == {"SECRET": "hush"}
    path = f"/dispatch/bundles/{version.bundle}"
    code = served.ask("GET", path, role=None, headers=hand.headers)
    assert code.content == b"".join(packed.chunks())


def test_the_same_claim_again_is_the_same_runs(served: Served, packed: Packed) -> None:
    deployed(served, packed)
    runs = {ordered(served) for _ in range(2)}
    hand = Hand(served)
    first, again = hand.take("c1"), hand.take("c1")
    assert {claim.flow_run.id for claim in first.claims} == runs
    assert [(one.flow_run.id, one.incarnation) for one in again.claims] == [
        (one.flow_run.id, one.incarnation) for one in first.claims
    ]
    assert hand.take("c2").claims == ()
    assert Hand(served, name="w2").take("c1").claims == ()


def test_a_paused_pool_gives_nothing_until_it_goes_on(
    one: Served, packed: Packed, only_wakes: None
) -> None:
    deployed(one, packed)
    run = ordered(one)
    assert one.ask("POST", "/pools/default/pause").status_code == 200
    hand = Hand(one)
    assert hand.take() == Polled()
    waiting = hand.waits()
    assert one.ask("POST", "/pools/default/resume").status_code == 200
    assert [claim.flow_run.id for claim in got(waiting).claims] == [run]


@pytest.mark.parametrize("how", ["drain", "leave"])
def test_whoever_is_to_end_gets_nothing_more(
    one: Served, packed: Packed, only_wakes: None, how: str
) -> None:
    deployed(one, packed)
    hand = Hand(one)
    waiting = hand.waits()
    if how == "drain":
        assert one.ask("POST", "/workers/w1/drain").status_code == 200
    else:
        assert hand.post("/dispatch/leave", wire.Left(worker_id="w1")).status_code == 200
    assert got(waiting) == Polled(drain=how == "drain")
    run = ordered(one)
    if how == "drain":
        assert hand.take() == Polled(drain=True)
        seen = hand.post("/dispatch/seen", hand.ask())
        assert wire.load_json(Polled, seen.content) == Polled(drain=True)
    assert stage_of(one.store, run) is Stage.WAITING


# --- What became of them --------------------------------------------------------------------------


def test_what_is_given_back_waits_for_another_worker(one: Served, packed: Packed) -> None:
    deployed(one, packed)
    run, lost = ordered(one), ordered(one)
    hand = Hand(one)
    assert len(hand.take().claims) == 2
    told = wire.GivenBack(incarnation=1, message="no room")
    assert hand.done(f"/dispatch/{run}/give-back", told)
    assert not hand.done(f"/dispatch/{run}/give-back", told)
    place = one.store.work.dispatch(run)
    assert place is not None
    assert (place.stage, place.refusals, place.message) == (Stage.WAITING, 1, "no room")
    forever = wire.GivenBack(incarnation=1, message="no code", permanent=True)
    assert hand.done(f"/dispatch/{lost}/give-back", forever)
    assert one.store.flow_run(lost).state.name is StateName.FAILED


def test_a_run_whose_process_died_goes_on_in_the_worker_that_waits(
    one: Served, packed: Packed, only_wakes: None
) -> None:
    deployed(one, packed)
    run = ordered(one)
    hand, other = Hand(one), Hand(one, name="w2")
    [claim] = hand.take().claims
    assert record(one.store, claim, StateName.RUNNING)
    waiting = other.waits()
    assert hand.done(f"/dispatch/{run}/died", wire.Died(incarnation=1, message="killed"))
    [again] = got(waiting).claims
    assert (again.flow_run.id, again.work) == (run, Work.RESUME)
    assert again.incarnation > claim.incarnation
    assert not hand.done(f"/dispatch/{run}/died", wire.Died(incarnation=1, message="killed"))


def test_a_worker_that_ends_has_its_runs_suspended(one: Served, packed: Packed) -> None:
    deployed(one, packed)
    run = ordered(one)
    hand = Hand(one)
    [claim] = hand.take().claims
    assert record(one.store, claim, StateName.RUNNING)
    moved = hand.post(f"/dispatch/{run}/move", wire.Moved(by="worker w1", message="it ends"))
    assert moved.status_code == 200
    [asked] = one.store.requests.of(run, open_only=True)
    assert (asked.by, asked.message) == ("worker w1", "it ends")


# --- Who may --------------------------------------------------------------------------------------


def test_a_claim_brings_the_token_that_its_run_is_recorded_with(
    one: Served, packed: Packed
) -> None:
    deployed(one, packed)
    runs = {ordered(one) for _ in range(2)}
    claims = Hand(one).take().claims
    assert {claim.flow_run.id for claim in claims} == runs
    for claim in claims:
        assert claim.token not in repr(claim)
        headers = {"Authorization": f"Bearer {claim.token}"}
        for run in runs:
            answer = one.ask("GET", f"/record/{run}/run", role=None, headers=headers)
            assert answer.status_code == (200 if run == claim.flow_run.id else 404)
        assert one.ask("GET", "/runs", role=None, headers=headers).status_code == 403
        poll = one.ask("POST", "/dispatch/poll", role=None, headers=headers, json={})
        assert poll.status_code in {403, 422}


def test_a_token_of_another_pool_gets_and_changes_nothing(one: Served, packed: Packed) -> None:
    deployed(one, packed)
    run = ordered(one)
    Hand(one).take()
    stranger = Hand(one, scope="gpu", name="w2")
    asked: list[Callable[[], httpx.Response]] = [
        lambda: stranger.post("/dispatch/poll", stranger.ask()),
        lambda: stranger.post("/dispatch/seen", stranger.ask()),
        lambda: stranger.post("/dispatch/leave", wire.Left(worker_id="w1")),
        lambda: stranger.post(
            f"/dispatch/{run}/give-back", wire.GivenBack(incarnation=1, message="mine")
        ),
        lambda: stranger.post(f"/dispatch/{run}/died", wire.Died(incarnation=1, message="mine")),
        lambda: stranger.post(f"/dispatch/{run}/move", wire.Moved(by="me", message="mine")),
        lambda: one.ask("GET", f"/dispatch/{run}/version", role=None, headers=stranger.headers),
    ]
    for ask in asked:
        answer = ask()
        assert (answer.status_code, answer.json()["code"]) == (403, "raflow.forbidden")
        assert "'gpu'" in answer.json()["detail"]
    assert stage_of(one.store, run) is Stage.CLAIMED
    assert [known.id for known in one.store.work.workers()] == ["w1"]
    assert Hand(one, scope="", name="w3").take() == Polled()


def test_a_worker_whose_token_was_revoked_waits_no_longer(one: Served) -> None:
    hand = Hand(one)
    waiting = hand.waits()
    assert one.ask("DELETE", f"/tokens/{hand.made.token.id}").status_code == 204
    assert waiting.result(60).status_code == 401


def test_only_an_administrator_makes_tokens_for_workers(one: Served) -> None:
    wanted = {"name": "box", "kind": "worker", "pool": "default"}
    assert one.ask("POST", "/tokens", role=Role.AUTHOR, json=wanted).status_code == 403
    made = one.ask("POST", "/tokens", json=wanted).json()
    assert (made["kind"], made["scope"]) == ("worker", "default")
    headers = {"Authorization": f"Bearer {made['text']}"}
    assert one.ask("GET", "/runs", role=None, headers=headers).status_code == 403
    for kind in ("run", "session", "signin"):
        refused = one.ask("POST", "/tokens", json=wanted | {"kind": kind})
        assert refused.status_code == 422


def test_what_is_no_question_of_a_worker_is_refused(one: Served) -> None:
    hand = Hand(one)
    answer = hand.post("/dispatch/poll", {"info": {}, "most": 1, "claim": "c", "color": 1})
    assert answer.status_code == 422
    assert one.store.work.workers() == []


def test_a_run_that_is_none_of_a_deployment_is_nobodys_work(one: Served) -> None:
    token = Hand(one).made.token
    work = PoolWork(one.store, one.app.state.signals, token, actor="w1")
    work.leave("nobody")
    answer = one.ask("GET", "/dispatch/nobody/version", role=None, headers=Hand(one).headers)
    assert answer.status_code == 404
