"""Calls that clean up after others."""

from __future__ import annotations

from typing import Any

import pytest

from raflow import errors
from raflow.define import Dependency, allow_failure, task
from raflow.model import EdgeKind, TriggerRule
from tests.unit.define.fake_flow import FakeFlow


@task
def start(name: str) -> str:
    return name


@task(retries=2)
def stop(name: Any = None) -> None: ...


@task(teardown=True)
def clean(name: Any = None) -> None: ...


class Server:
    @task
    def stop(self) -> None: ...


def order(node: int, **how: Any) -> Dependency:
    return Dependency(node, EdgeKind.ORDER, **how)


def test_a_call_tears_down_what_others_set_up(body: FakeFlow) -> None:
    first, second = start("a"), start("b")
    used = start(first)
    stop.submit(first, teardown_of=[first, second, first], wait_for=used)
    made = body.last
    assert made.teardown_of == (0, 1)
    assert made.dependencies == (
        Dependency(0, EdgeKind.DATA, "name"),
        order(2),
        order(0),
        order(1),
    )
    assert made.options.teardown
    assert made.options.trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert made.options.retry.retries == 2


def test_other_calls_of_the_task_are_as_ever(body: FakeFlow) -> None:
    setup = start("a")
    stop.submit(teardown_of=setup)
    stop.submit(teardown_of=setup)
    stop.submit(wait_for=setup)
    stop()
    options = [request.options for request in body.requests[1:]]
    assert options[0] is options[1]
    assert options[2] is options[3] is stop.options
    assert not stop.options.teardown
    assert [request.teardown_of for request in body.requests] == [(), (0,), (0,), (), ()]


def test_a_task_can_be_there_to_clean_up(body: FakeFlow) -> None:
    clean.submit(wait_for=start("a"))
    assert body.last.options is clean.options
    assert (body.last.options.teardown, body.last.teardown_of) == (True, ())
    clean()
    assert body.last.options.trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS


def test_maps_and_items_are_set_up_too(body: FakeFlow) -> None:
    many = start.map(["a", "b"])
    stop.submit(teardown_of=many)
    assert (body.last.teardown_of, body.last.dependencies) == ((0,), (order(0),))
    stop.submit(teardown_of=(many[1], allow_failure(many[0])))
    assert body.last.teardown_of == (0,)
    assert body.last.dependencies == (order(0, source_item=1), order(0, source_item=0))


def test_a_method_cleans_up(body: FakeFlow) -> None:
    setup = start("a")
    server = Server()
    server.stop.submit(teardown_of=setup)
    assert body.last.teardown_of == (0,)
    assert body.last.arguments == {"self": server}


def test_only_futures_are_set_up(body: FakeFlow) -> None:
    with pytest.raises(
        errors.DefinitionError, match=r"Task 'stop': teardown_of takes futures, but"
    ):
        stop.submit(teardown_of="a")
    assert body.requests == []


def test_no_parameter_has_the_name_of_the_option() -> None:
    def wrong(teardown_of: int) -> None: ...

    with pytest.raises(
        errors.DefinitionError, match="'teardown_of', which `submit` and `map` need"
    ):
        task(wrong)
