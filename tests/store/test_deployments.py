"""Deployments: a version for each change and for nothing else, and a pointer that moves back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from raflow import errors, model
from raflow.model import (
    Bundle,
    Deployment,
    DeploymentSpec,
    DeploymentVersion,
    FlowVersion,
    RunOrder,
    RunOrigin,
    ScheduleSpec,
    StateName,
    Work,
)
from raflow.model.schedule import Cron, Interval, Once, Overlap, Policy, RRule, Rule, Schedule
from raflow.store import Store
from tests.store.orders import record

SPEC = DeploymentSpec(
    flow="etl",
    entrypoint="flows/etl.py:etl",
    pool="gpu",
    parameters={"regions": ["eu", "us"], "big": 2**80, "none": None},
    tags=("nightly",),
    priority=2,
    concurrency=1,
    offline_seconds=0.5,
    environment={"MODE": "fast"},
    isolation=model.Isolation.PROCESS,
    on_crash=model.OnCrash.CRASH,
)
RULES: list[Rule] = [
    Cron("30 2 * * *", timezone="Europe/Paris"),
    Interval(timedelta(seconds=90)),
    RRule("DTSTART:20260101T000000\nRRULE:FREQ=DAILY;COUNT=3"),
    Once(datetime(2026, 1, 1, tzinfo=UTC)),
]
SCHEDULES = tuple(
    ScheduleSpec(name=f"s{n}", schedule=Schedule(rule=rule, jitter=timedelta(minutes=n)))
    for n, rule in enumerate(RULES)
)


def version_of(digest: str = "b" * 64, **changes: object) -> DeploymentVersion:
    version = DeploymentVersion(
        number=0,
        spec=SPEC,
        digest="",
        bundle=digest,
        fingerprint="f1",
        parameter_schema={"type": "object"},
        python="3.11.7",
        packages={"numpy": "2.0", "ray": "2.60"},
        actor="ann@here",
        note="first",
    )
    return dataclasses.replace(version, **changes)  # type: ignore[arg-type]


def put(
    store: Store, name: str = "nightly", *, if_match: int | None = None, **changes: object
) -> tuple[Deployment, bool]:
    version = version_of(**changes)  # type: ignore[arg-type]
    code = FlowVersion(flow=version.spec.flow, fingerprint=version.fingerprint, source="def etl()")
    keep(store, version.bundle)
    return store.deployments.put(name, version, code, if_match=if_match)


def keep(store: Store, digest: str) -> None:
    manifest = b"- a\n- b\n"
    bundle = Bundle(digest=digest, size=9, files=2, unpacked=20, url="here", manifest=manifest)
    store.deployments.keep_bundle(bundle)


def order(store: Store, run_id: str, deployment: str = "nightly") -> None:
    origin = RunOrigin(deployment=deployment, version=1, bundle="b" * 64, pool="gpu")
    run = RunOrder(flow_run_id=run_id, flow="etl", fingerprint="f1", name=run_id, origin=origin)
    store.work.order([run])


def test_what_was_put_is_read_again(store: Store) -> None:
    deployment, is_new = put(store, schedules=SCHEDULES)
    assert is_new
    assert (deployment.name, deployment.version, deployment.revision) == ("nightly", 1, 1)
    assert deployment.spec == SPEC
    assert store.deployments.get("nightly") == deployment
    version = store.deployments.version("nightly")
    assert version.digest
    assert version.created_at > 0
    given = dataclasses.replace(version, number=0, digest="", created_at=0.0)
    assert given == version_of(schedules=SCHEDULES)
    bundle = store.deployments.bundle("b" * 64)
    assert bundle is not None
    assert bundle.manifest == b"- a\n- b\n"
    assert store.deployments.bundle("0" * 64) is None
    assert store.flow_version("f1").source == "def etl()"
    assert [state.pool.name for state in store.work.pools()] == ["gpu"]


def test_the_same_again_changes_nothing_whoever_says_it(store: Store) -> None:
    first, _ = put(store)
    again, is_new = put(store, actor="bob@there", note="again", number=7)
    assert not is_new
    assert again == first
    assert len(store.deployments.versions("nightly")) == 1


CHANGES: dict[str, dict[str, object]] = {
    "parameters": {"spec": dataclasses.replace(SPEC, parameters={"regions": ["eu"]})},
    "pool": {"spec": dataclasses.replace(SPEC, pool="cpu")},
    "files": {"digest": "c" * 64},
    "code": {"fingerprint": "f2"},
    "packages": {"packages": {"numpy": "2.1", "ray": "2.60"}},
    "python": {"python": "3.12.0"},
    "schema": {"parameter_schema": {}},
    "schedules": {"schedules": SCHEDULES},
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_makes_a_version(store: Store, what: str) -> None:
    put(store)
    deployment, is_new = put(store, **CHANGES[what])  # type: ignore[arg-type]
    assert is_new
    assert (deployment.version, deployment.revision) == (2, 2)
    assert [version.number for version in store.deployments.versions("nightly")] == [2, 1]
    back, is_new = put(store)
    assert is_new  # what is in use counts, not what once was
    assert back.version == 3


def test_a_schedule_that_says_the_same_makes_no_version(store: Store) -> None:
    put(store, schedules=SCHEDULES)
    again = [dataclasses.replace(each, policy=Policy()) for each in SCHEDULES]
    assert put(store, schedules=tuple(again))[1] is False
    again[0] = dataclasses.replace(again[0], policy=Policy(overlap=Overlap.ALLOW_ALL))
    assert put(store, schedules=tuple(again))[1] is True


def test_an_earlier_version_can_be_used_again(store: Store) -> None:
    put(store)
    put(store, digest="c" * 64, spec=dataclasses.replace(SPEC, priority=9, pool="cpu"))
    deployment = store.deployments.use("nightly", 1)
    assert (deployment.version, deployment.revision) == (1, 3)
    assert deployment.spec == SPEC
    assert store.deployments.version("nightly").bundle == "b" * 64
    assert store.deployments.use("nightly", 1) == deployment
    with pytest.raises(errors.NotFoundError, match="no version 3: its versions are 1 to 2"):
        store.deployments.use("nightly", 3)


def test_a_change_of_what_has_changed_is_refused(store: Store) -> None:
    put(store, if_match=1)  # there is nothing to match yet
    put(store, digest="c" * 64, if_match=1)
    changes: list[Callable[[], object]] = [
        lambda: put(store, digest="d" * 64, if_match=1),
        lambda: store.deployments.use("nightly", 1, if_match=1),
        lambda: store.deployments.remove("nightly", if_match=1),
    ]
    for change in changes:
        with pytest.raises(errors.StaleError, match="revision 2, not 1") as caught:
            change()
        assert caught.value.revision == 2
    assert store.deployments.get("nightly").version == 2


def test_a_version_needs_its_bundle(store: Store) -> None:
    code = FlowVersion(flow="etl", fingerprint="f1")
    with pytest.raises(errors.BundleMissingError, match="deploy again"):
        store.deployments.put("nightly", version_of(), code)
    assert store.deployments.all() == []
    assert store.flows() == []


def test_deployments_are_listed_by_name(store: Store) -> None:
    assert store.deployments.all() == []
    put(store, "b")
    put(store, "a", spec=dataclasses.replace(SPEC, flow="other"))
    put(store, "c", spec=dataclasses.replace(SPEC, pool="cpu"))
    listed = store.deployments.all()
    assert [deployment.name for deployment in listed] == ["a", "b", "c"]
    assert listed[0] == store.deployments.get("a")
    assert [deployment.name for deployment in store.deployments.all(flow="etl")] == ["b", "c"]
    assert [deployment.name for deployment in store.deployments.all(pool="gpu")] == ["a", "b"]


def test_what_is_not_there_is_named_with_the_closest(store: Store) -> None:
    put(store)
    reads: list[Callable[[str], object]] = [
        store.deployments.get,
        store.deployments.version,
        store.deployments.versions,
        store.deployments.remove,
        lambda name: store.deployments.use(name, 1),
    ]
    for read in reads:
        with pytest.raises(errors.NotFoundError, match="Did you mean 'nightly'"):
            read("nightyl")


def test_removing_cancels_what_waits_and_keeps_the_numbers(store: Store) -> None:
    put(store)
    order(store, "one")
    order(store, "two")
    order(store, "other", deployment="another")
    [claim] = store.work.claim("gpu", "w1", most=1, seconds=60, claim="c1")
    assert claim.flow_run.id == "one"
    assert store.deployments.remove("nightly") == 1
    states = {run.id: run.state.name for run in store.flow_runs()}
    assert states == {
        "one": StateName.SUBMITTED,
        "two": StateName.CANCELLED,
        "other": StateName.SCHEDULED,
    }
    assert store.deployments.all() == []
    with pytest.raises(errors.NotFoundError):
        store.deployments.get("nightly")
    deployment, is_new = put(store)
    assert is_new
    assert (deployment.version, deployment.revision) == (2, 3)


def test_one_that_comes_back_is_not_paused_because_the_one_before_was(store: Store) -> None:
    put(store)
    store.deployments.set_paused("nightly", True)
    store.deployments.remove("nightly")
    assert not put(store)[0].paused


def test_many_at_once_make_one_version(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda _: put(store), range(16))]
    assert [is_new for _, is_new in made].count(True) == 1
    assert {deployment.version for deployment, _ in made} == {1}
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda n: put(store, fingerprint=f"f{n + 2}"), range(8))]
    assert sorted(deployment.version for deployment, _ in made) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_no_run_of_a_paused_deployment_begins_until_it_goes_on(store: Store) -> None:
    put(store, spec=dataclasses.replace(SPEC, concurrency=None))
    order(store, "begun")
    [begun] = store.work.claim("gpu", "w1", most=1, seconds=60, claim="c1")
    order(store, "one")
    order(store, "other", deployment="another")
    paused = store.deployments.set_paused("nightly", True)
    assert (paused.paused, paused.revision) == (True, 2)
    assert store.deployments.set_paused("nightly", True).revision == 2
    [claim] = store.work.claim("gpu", "w1", most=9, seconds=60, claim="c2")
    assert claim.flow_run.id == "other"
    assert store.work.snapshot("one").deployment_paused
    record(store, begun, StateName.RUNNING)
    assert store.work.put_back("begun", message="gone", died=begun.incarnation)
    [again] = store.work.claim("gpu", "w2", most=9, seconds=60, claim="c3")
    assert (again.flow_run.id, again.work) == ("begun", Work.RESUME)
    assert not store.deployments.set_paused("nightly", False).paused
    [claim] = store.work.claim("gpu", "w1", most=9, seconds=60, claim="c4")
    assert claim.flow_run.id == "one"
