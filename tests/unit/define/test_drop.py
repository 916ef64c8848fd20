"""The flow's context is told when no future of a node is left."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from raflow.define import allow_failure, flow, task, unmapped
from tests.unit.define.fake_flow import FakeFlow, body_of


@task
def add(a: Any, b: Any = 2) -> Any:
    return a + b


@flow
def inner(n: int) -> int:
    return n


@pytest.fixture(autouse=True)
def _no_cycles() -> Iterator[None]:
    gc.disable()  # so that only what no cycle holds is freed
    yield
    gc.enable()


def test_the_only_future_of_a_call(body: FakeFlow) -> None:
    future = add(1)
    same = copy.deepcopy(copy.copy(future))
    del future
    assert body.dropped == []
    del same
    assert body.dropped == [0]
    add(1)
    inner(1)
    add.map([1, 2])
    assert body.dropped == [0, 1, 2, 3]
    gc.collect()
    assert body.dropped == [0, 1, 2, 3]


def test_a_future_in_a_list_is_kept(body: FakeFlow) -> None:
    futures = [add(n) for n in range(3)]
    assert body.dropped == []
    del futures[1]
    assert body.dropped == [1]
    futures.clear()
    assert sorted(body.dropped) == [0, 1, 2]


def test_the_items_of_a_map_keep_the_map(body: FakeFlow) -> None:
    mapped = add.map([1, 2, 3])
    first, *others = mapped
    last = mapped[-1]
    del mapped, others
    assert body.dropped == []
    del first
    assert body.dropped == []
    del last
    assert body.dropped == [0]


def test_the_map_keeps_itself_without_its_items(body: FakeFlow) -> None:
    mapped = add.map([1, 2, 3])
    assert [item.key for item in mapped[:2]] == ["add-0[0]", "add-0[1]"]
    assert body.dropped == []
    del mapped
    assert body.dropped == [0]


def test_an_item_of_a_map_that_is_only_passed_on(body: FakeFlow) -> None:
    add(add.map([1, 2])[1])
    assert sorted(body.dropped) == [0, 1]


def test_what_a_request_holds_keeps_no_future(body: FakeFlow) -> None:
    """The context has all requests; were a future in one, the node would never be dropped."""
    add([add(1), {"x": add.map([1])}], b=allow_failure(add(2)))
    add.map([add(1), 2], b=unmapped([add(2), 3]))
    add.map(add.map([1, 2]), b=[add(1), allow_failure(add(2))])
    add.map(iter([1, 2]), b=unmapped(add(1)))
    add.submit(1, wait_for=[add(1)], run_if=add(1))
    assert sorted(body.dropped) == [*range(len(body.requests))]


def test_a_call_that_is_refused_drops_nothing_of_its_own(body: FakeFlow) -> None:
    with pytest.raises(TypeError):
        add(add(1), c=1)  # type: ignore[call-arg]  # on purpose
    assert body.dropped == [0]


def test_a_context_that_fails_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeFlow):
        def drop(self, node: int) -> None:
            raise RuntimeError("no")

    with body_of(Broken()):
        add(1)
        add.map([1])
    assert capfd.readouterr() == ("", "")


def test_futures_that_are_left_when_the_interpreter_ends() -> None:
    script = """
        from raflow.define import task, active_flow
        from tests.unit.define.fake_flow import FakeFlow

        class Circle(FakeFlow):
            def drop(self, node):
                log.append(node)

        @task
        def add(a):
            return a

        log = []
        active_flow.set(Circle())
        kept = [add(1), add.map([1, 2]), add.map([1])[0]]
        kept.append(kept)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
