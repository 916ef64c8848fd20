"""Who waits for worker processes that cannot be started is found out by sending others along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from raflow.execute.ray._starts import HeldUp, Starts, Waiting, set_up_seconds, waits_for_own
from raflow.model import Resources

FALSE = json.dumps({"py_executable": "/bin/false"})
LIMIT = 60.0


@dataclass
class Sent:
    """What was sent along, to nodes of which some answer."""

    waiting: list[str]
    size: int
    dropped: bool = False

    def silent(self) -> Sequence[str]:
        return self.waiting

    def drop(self) -> None:
        self.dropped = True


@dataclass
class Ray:
    """Where no process can be started, until somebody answers."""

    nodes: tuple[str, ...] = ("here",)
    sent: list[Sent] = field(default_factory=list)

    def ask(self, env: str | None, wanted: Resources) -> Sent:
        nodes = self.nodes if env is None else ("",)
        self.sent.append(Sent([*nodes], len(nodes)))
        return self.sent[-1]

    def starts(self) -> Starts:
        return Starts(LIMIT, ask=self.ask, total=lambda: {"CPU": 2.0})


def batch(
    waited: float = 9.0, *, env: str | None = None, cpus: float = 1.0, begun: bool = False
) -> Waiting:
    return Waiting(1, 7, Resources(num_cpus=cpus, runtime_env=env), begun, waited)


def test_nobody_is_asked_for_what_waits_a_moment_or_waits_for_its_own_kind() -> None:
    ray = Ray()
    starts = ray.starts()
    assert starts.look(0.0, [batch(waited=4.0)]) == []
    assert starts.look(1.0, [batch(), batch(cpus=2.0, begun=True)]) == []
    assert starts.look(2.0, [batch(cpus=3.0)]) == []  # of a node that is still to come
    assert ray.sent == []


def test_it_is_told_after_a_while_and_hopeless_at_the_limit() -> None:
    ray = Ray()
    starts = ray.starts()
    late = batch()
    assert starts.look(0.0, [late]) == []
    assert starts.look(9.0, [late]) == []
    assert starts.look(11.0, [late]) == [HeldUp([late], None, ["here"], 11.0, True, False)]
    [held] = starts.look(60.0, [late])
    assert held.is_hopeless
    assert len(ray.sent) == 1


def test_as_long_as_anything_runs_it_is_not_hopeless() -> None:
    starts = Ray().starts()
    late = batch()
    starts.look(0.0, [late])
    [held] = starts.look(100.0, [late, batch(begun=True)])
    assert not held.is_hopeless


def test_a_node_that_answers_leaves_hope() -> None:
    ray = Ray(nodes=("a", "b"))
    starts = ray.starts()
    late = batch()
    starts.look(0.0, [late])
    ray.sent[0].waiting.remove("a")
    [held] = starts.look(100.0, [late])
    assert (held.nodes, held.everywhere, held.is_hopeless) == (["b"], False, False)


def test_who_has_been_answered_is_asked_again_ever_more_seldom() -> None:
    ray = Ray()
    starts = ray.starts()
    late = batch()
    asked: list[int] = []
    for second in range(400):
        starts.look(float(second), [late])
        if len(ray.sent) > len(asked):
            asked.append(second)
            ray.sent[-1].waiting.clear()
    assert asked == [0, 31, 92, 213]
    assert starts.look(500.0, []) == []
    starts.look(501.0, [late])
    assert len(ray.sent) == len(asked) + 1  # another wait, another suspicion


def test_what_was_sent_is_dropped_when_nobody_waits_any_more() -> None:
    ray = Ray()
    starts = ray.starts()
    starts.look(0.0, [batch()])
    starts.look(1.0, [batch(begun=True)])
    assert ray.sent[0].dropped
    starts.look(2.0, [batch()])
    starts.close()
    assert ray.sent[1].dropped


def test_a_runtime_env_that_lets_nothing_start_is_told_apart() -> None:
    ray = Ray()
    starts = ray.starts()
    late = batch(env=FALSE)
    starts.look(0.0, [late])
    [held] = starts.look(61.0, [late, batch(begun=True)])
    assert (held.runtime_env, held.is_hopeless) == (FALSE, True)
    assert starts.look(62.0, [batch(env=FALSE, waited=1.0)]) == []
    [held] = starts.look(67.0, [late])  # the next ones need not wait as long
    assert held.is_hopeless
    ray.sent[0].waiting.clear()
    assert starts.look(68.0, [late]) == []


def test_processes_that_others_hold_up_get_their_time_afterwards() -> None:
    starts = Ray().starts()
    plain, other = batch(), batch(env=FALSE)
    starts.look(0.0, [plain, other])
    held = {one.runtime_env: one.is_hopeless for one in starts.look(60.0, [plain, other])}
    assert held == {FALSE: True, None: False}
    [one] = starts.look(61.0, [plain])
    assert not one.is_hopeless
    [one] = starts.look(120.0, [plain])
    assert one.is_hopeless


def test_ray_has_its_own_limit_for_what_it_installs() -> None:
    assert set_up_seconds(None) == 0
    assert set_up_seconds(FALSE) == 0
    assert set_up_seconds('{"pip": ["polars"]}') == 600
    assert set_up_seconds('{"pip": ["x"], "config": {"setup_timeout_seconds": 20}}') == 20
    assert set_up_seconds('{"pip": ["x"], "config": {"setup_timeout_seconds": -1}}') == 600
    starts = Ray().starts()
    late = batch(env='{"pip": ["polars"]}')
    starts.look(0.0, [late])
    assert starts.look(600.0, [late]) == []
    [held] = starts.look(659.0, [late])
    assert not held.is_hopeless
    [held] = starts.look(660.0, [late])
    assert held.is_hopeless


def test_what_calls_wait_for_is_counted_by_name() -> None:
    one = Resources(num_cpus=1, num_gpus=0.5, custom=(("disk", 1.0),))
    total = {"CPU": 8.0, "GPU": 1.0, "disk": 5.0}
    assert not waits_for_own(one, [one], total)
    assert waits_for_own(one, [one, one], total)
    assert waits_for_own(Resources(memory=10), [], total)
