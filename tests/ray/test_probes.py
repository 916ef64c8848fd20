"""Nodes, raylets and control services that die; each test has a Ray of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from raflow.execute.ray._probes import Absence
from tests.ray.scripts import run_script

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_dead_control_service_is_told_before_ray_gives_it_up(tmp_path: Path) -> None:
    done = run_script(
        """
        import signal
        before = time.time()
        backend = RayBackend(home=home, num_cpus=1)
        run = Run(backend, home)
        roles = {p.role for p in backend.processes()}
        assert {"raylet", "gcs_server"} <= roles, roles
        batch = run.submit(run.call(user.nap, {"seconds": 600}))
        run.start_of(batch)
        [gcs] = [p for p in backend.processes() if p.role == "gcs_server"]
        assert before - 1 <= gcs.started_at <= time.time() + 1
        call = run.call(user.add, {"x": 1})
        os.kill(gcs.pid, signal.SIGKILL)
        gone = run.gone()  # Ray ends this process after a minute
        print(gone.message)
        print([attempt for _, attempt in gone.running], backend.is_gone)
        lost = run.lose(batch)
        print(lost.outcome.value)
        again = run.submit(call)
        print(run.lose(again).outcome.value)
        later = Run(backend, home)
        print(later.gone() == gone._replace(running=[]))
        run.close()
        backend.close()
        """,
        tmp_path,
    )
    told, *rest = done.stdout.splitlines()
    assert told.startswith("the control service of Ray (GCS, process "), done
    assert rest == ["[1] True", "lost", "lost", "True"], done


def test_a_dead_raylet_is_told_while_nothing_is_in_flight(tmp_path: Path) -> None:
    done = run_script(
        """
        import signal
        backend = RayBackend(home=home, num_cpus=1)
        run = Run(backend, home)
        os.kill(backend._link.raylet.pid, signal.SIGKILL)
        print(run.gone().message)
        run.close()
        backend.close()
        """,
        tmp_path,
    )
    assert done.stdout.startswith("the raylet of this machine"), done


def test_an_absence_is_told_after_the_patience_and_only_if_it_lasts() -> None:
    away = Absence(30.0)
    assert away.look(0.0, there=True) is None
    assert away.look(1.0, there=False) is None
    assert away.look(30.0, there=False) is None
    assert away.look(31.0, there=True) is None
    assert away.look(40.0, there=False) is None
    assert away.look(69.0, there=False) is None
    story = away.look(70.0, there=False)
    assert story is not None
    assert "GCS" in story


LOST_NODE = """
    from ray.cluster_utils import Cluster
    from tests.waiting import wait_for
    from raflow.execute import ListOf, EachOf, BatchEnded
    from raflow.model import Resources, Outcome
    import ray
    head = {"num_cpus": 1, "resources": {"home": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(wait=False, num_cpus=1, resources={"away": 1})
    cluster.wait_for_nodes(timeout=100)
    backend = RayBackend(cluster.address, home=home)
    run = Run(backend, home)
    away = Resources(num_cpus=1, custom=(("away", 1.0),))
    here = Resources(num_cpus=1, custom=(("home", 1.0),))
    def array(resources):
        batch = run.submit(run.call(user.big_array, {"megabytes": 1}), resources=resources)
        return run.ref(batch)
    lost = array(away)
    """


def test_inputs_that_died_with_their_node_are_lost_and_charged_to_nobody(tmp_path: Path) -> None:
    done = run_script(
        LOST_NODE
        + """
    blocker = run.submit(run.call(user.hold, {"path": str(home / "go")}), resources=here)
    run.start_of(blocker)
    batch = run.submit(
        run.call(user.total, inputs={"array": lost}),
        run.call(user.add, {"x": 1}),
        run.call(user.echo, inputs={"value": EachOf((lost, lost))}, length=2),
        resources=here,
    )
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: [n["Alive"] for n in ray.nodes()].count(True) == 1)
    (home / "go").touch()
    end = run.end_of(batch)
    print(type(end).__name__)
    print(sorted((p, r.outcome.value, r.lost_inputs) for p, r in end.report.told.items()))
    print(list(end.report.unstarted), end.lost == (lost.handle,))
    run.finish(blocker)
    late = run.submit(run.call(user.total, inputs={"array": lost}), resources=here)
    end = run.end_of(late)
    print(sorted((p, r.outcome.value, r.lost_inputs) for p, r in end.report.told.items()))
    run.close()
    backend.close()
    cluster.shutdown()
    """,
        tmp_path,
        RAY_AUTH_MODE="disabled",
    )
    assert done.stdout.splitlines() == [
        "BatchEnded",
        "[(0, 'lost', (0,)), (2, 'lost', (0,)), (3, 'lost', (0,))]",
        "[1] True",
        "[(0, 'lost', (0,))]",
    ], done


def test_a_node_that_dies_loses_what_ran_on_it(tmp_path: Path) -> None:
    done = run_script(
        LOST_NODE
        + """
    batch = run.submit(run.call(user.nap, {"seconds": 600}), resources=away)
    run.start_of(batch)
    cluster.remove_node(node, allow_graceful=False)
    end = run.lose(batch)
    print(end.outcome.value, end.cause.kind)
    run.close()
    backend.close()
    cluster.shutdown()
    """,
        tmp_path,
        RAY_AUTH_MODE="disabled",
    )
    assert done.stdout.splitlines() == ["lost node lost"], done


def test_offspring_and_causes_on_another_node(tmp_path: Path) -> None:
    done = run_script(
        LOST_NODE
        + """
    import signal
    from raflow.execute._processes import process
    def start(name):
        path = home / name
        arguments = {"path": str(path), "seconds": 600, "program": False}
        batch = run.submit(run.call(user.start_daemon, arguments), resources=away)
        pid = run.start_of(batch).pid
        wait_for(path.exists)
        child = int(path.read_text())
        assert process(child)
        return batch, pid, child
    batch, pid, child = start("killed")
    os.kill(pid, signal.SIGKILL)
    end = run.lose(batch)
    print(end.outcome.value, end.cause.kind, end.cause.pid == pid, process(child))
    batch, pid, child = start("cancelled")
    run.session.cancel_calls(batch, [0], force=True)
    end = run.finish(batch)
    print(end.report.told[0].outcome.value, process(child))
    batch, pid, child = start("closed")
    run.close()
    wait_for(lambda: process(child) is None)
    print("ended")
    backend.close()
    cluster.shutdown()
    """,
        tmp_path,
        RAY_AUTH_MODE="disabled",
    )
    assert done.stdout.splitlines() == [
        "crashed killed True None",
        "cancelled None",
        "ended",
    ], done
