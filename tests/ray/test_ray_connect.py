"""Finding a Ray, starting one, and losing it; each test has a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from raflow.execute.ray import RayBackend
from tests.ray.scripts import run_script
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster(ray_backend: RayBackend) -> str:
    """The address of a running Ray whose token other processes can have."""
    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture
def token(ray_backend: RayBackend) -> str:
    return os.environ["RAY_AUTH_TOKEN_PATH"]


def test_a_local_ray_is_private_quiet_and_ends_with_the_backend(tmp_path: Path) -> None:
    done = run_script(
        """
        backend = RayBackend(home=home, num_cpus=1)
        run = Run(backend, home)
        assert run.session.fetch(run.value(user.add, {"x": 1})) == 2
        assert run.session.fetch(run.value(user.environment, {"name": "RAY_AUTH_MODE"})) == "token"
        assert backend.capacity().cpus == 1
        run.close()
        import ray
        session = ray._private.worker.global_worker.node.get_session_dir_path()
        import subprocess
        ps = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
        programs = [words for words in ps.splitlines() if session in words]
        assert any("raylet" in words for words in programs)
        assert not any(
            f"{name}.py" in words.partition(session)[0]
            for words in programs for name in ("dashboard", "monitor", "log_monitor")
        )
        backend.close()
        assert not ray.is_initialized()
        assert not list(pathlib.Path("/dev/shm").glob(f"raflow-{backend._tools.progress.token}*"))
        """,
        tmp_path,
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        grpc_proxy="http://127.0.0.1:9",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    token = tmp_path / "ray" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64


def test_ray_may_have_been_imported_before(tmp_path: Path) -> None:
    done = run_script(
        """
        import ray
        backend = RayBackend(home=home, num_cpus=1)
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(home / "ray" / "token")
        backend.close()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_ray_of_this_process_is_used_and_left_alone(tmp_path: Path, cluster: str) -> None:
    backend = RayBackend(home=tmp_path)
    backend.close()
    assert ray.is_initialized()
    assert not (tmp_path / "ray").exists()


def test_the_ray_that_runs_on_this_machine_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)  # another test's Ray is alive in this process
    folder = tempfile.mkdtemp(prefix="raflow-")  # short: Ray keeps its sockets below it
    environment = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ""}
    connect = """
        backend = RayBackend(home=home)
        import ray
        print(ray.get_runtime_context().gcs_address, backend._link.local)
        run = Run(backend, home)
        assert run.session.fetch(run.value(user.add, {"x": 1})) == 2
        run.close()
        backend.close()
        """
    secret = tmp_path / "secret"
    secret.write_text("ab" * 32)
    ray_start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=1"]
    with subprocess.Popen(
        [*ray_start, "--port=0", "--include-dashboard=false", "--block"],
        env={
            **os.environ,
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(secret),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as head:
        address = Path(folder, "ray", "ray_current_cluster")
        try:
            wait_for(address.exists)
            done = run_script(connect, tmp_path, **environment)
        finally:
            os.killpg(head.pid, signal.SIGKILL)
    assert done.stdout.split() == [address.read_text(), "False"], done
    assert done.stderr == ""
    after = run_script(connect, tmp_path, **environment)
    assert after.stdout.split()[1] == "True", after
    shutil.rmtree(folder)


@pytest.mark.parametrize("by", ["argument", "RAY_ADDRESS"])
def test_a_cluster_is_joined_by_its_address(
    tmp_path: Path, cluster: str, token: str, by: str
) -> None:
    done = run_script(
        """
        backend = RayBackend(sys.argv[2] or None, home=home)
        run = Run(backend, home)
        batch = run.submit(run.call(user.nap, {"seconds": 600}))
        run.start_of(batch)  # the line to the driver works
        run.session.cancel(batch, force=False)
        assert run.reports(batch)[0].outcome == "cancelled"
        backend.close()
        """,
        tmp_path,
        cluster if by == "argument" else "",
        RAY_AUTH_TOKEN_PATH=token,
        RAY_AUTH_MODE="token",
        **({"RAY_ADDRESS": cluster} if by == "RAY_ADDRESS" else {}),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ray.is_initialized()


def test_on_a_joined_cluster_the_users_files_travel(
    tmp_path: Path, cluster: str, token: str
) -> None:
    (tmp_path / "my_helper.py").write_text("def double(x): return 2 * x")
    (tmp_path / "my_flow.py").write_text(
        "import my_helper\ndef make(x): return my_helper.double(x)"
    )
    done = run_script(
        """
        sys.path.insert(0, str(home))
        import my_flow, pathlib
        backend = RayBackend(sys.argv[2], home=home)
        run = Run(backend, home, sys_path=(str(home),))
        call = run.call(my_flow.make, {"x": 4})
        for name in ("my_flow.py", "my_helper.py"):
            (home / name).unlink()
        assert run.fetch(run.submit(call)) == 8
        backend.close()
        """,
        tmp_path,
        cluster,
        RAY_AUTH_TOKEN_PATH=token,
        RAY_AUTH_MODE="token",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_wrong_token_is_said(tmp_path: Path, cluster: str) -> None:
    done = run_script(
        """
        import ray
        from raflow.errors import BackendError
        try:
            RayBackend(sys.argv[2], home=home)
        except BackendError as error:
            print(error)
        print(ray.is_initialized())
        """,
        tmp_path,
        cluster,
        RAY_AUTH_TOKEN="ab" * 32,
        RAY_AUTH_MODE="token",
    )
    assert not done.returncode, done
    said, initialized = done.stdout.splitlines()
    assert said.startswith(f"Ray at {cluster!r} does not accept the token in RAY_AUTH_TOKEN. ")
    assert initialized == "False"
    # Ray itself would go on trying, and say so again and again.
    assert len(done.stderr.splitlines()) <= 1


def test_an_address_without_a_cluster_is_said(tmp_path: Path) -> None:
    done = run_script(
        """
        from raflow.errors import BackendError
        for address in ("127.0.0.1:1", "ray://127.0.0.1:10001", "nonsense:port"):
            try:
                RayBackend(address, home=home)
            except BackendError as error:
                print(error)
        """,
        tmp_path,
    )
    refused, client, nonsense = done.stdout.splitlines()
    assert "Nothing answers at the Ray address '127.0.0.1:1'" in refused
    assert "Ray Client" in client
    assert "'nonsense:port'" in nonsense


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_script(
        """
        from raflow.errors import BackendError
        try:
            RayBackend(home=home)
        except BackendError as error:
            print(error)
        """,
        tmp_path / "file",
    )
    assert "RAFLOW_HOME" in done.stdout


def test_a_dead_raylet_ends_everything(tmp_path: Path) -> None:
    done = run_script(
        """
        import signal
        from raflow.errors import BackendError
        backend = RayBackend(home=home, num_cpus=1)
        run = Run(backend, home)
        array = run.value(user.big_array, {"megabytes": 8})
        running = run.submit(run.call(user.nap, {"seconds": 600}))
        waiting = run.submit(run.call(user.nap, {"seconds": 600}))
        late = run.call(user.add, {"x": 1})
        run.start_of(running)
        os.kill(backend._link.raylet.pid, signal.SIGKILL)
        print(run.lose(running), run.lose(waiting), sep="\\n")
        print(run.lose(run.submit(late)))
        try:
            run.session.fetch(array)
        except BackendError as error:
            print(error)
        run.close()
        backend.close()
        """,
        tmp_path,
    )
    *lost, gone = done.stdout.splitlines()
    assert len(lost) == 3, done
    assert all("Outcome.LOST" in line and "raylet" in line for line in lost)
    assert "value" in gone


def test_memory_that_runs_out_is_told_from_a_crash(tmp_path: Path) -> None:
    used = _memory_used()
    done = run_script(
        """
        backend = RayBackend(home=home, num_cpus=1)
        run = Run(backend, home)
        greedy = run.call(user.use_memory_slowly, {"megabytes": 12_000})
        loss = run.lose(run.submit(run.call(user.process), greedy))
        print(loss.outcome, list(loss.running), loss.message)
        backend.close()
        """,
        tmp_path,
        RAY_memory_monitor_refresh_ms="50",
        RAY_memory_usage_threshold=f"{used + 0.1:.3f}",
    )
    assert done.stdout.startswith("out_of_memory [1]"), done
    assert "`memory` hint" in done.stdout


def _memory_used() -> float:
    facts = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, free = (int(facts[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return 1 - free / total
