"""The workloads in Prefect: `python prefect_flows.py {threads,ray} {fan_out,chain} COUNT`.

Prefect keeps its record in SQLite, behind a server that it starts for the process. States of task
runs reach it some time after the flow has returned; a run counts as recorded when all are there.
"""

# Prefect lives in an environment of its own.
# mypy: ignore-errors

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from pathlib import Path

from prefect import flow, task
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

DATABASE = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
PATIENCE_SECONDS = 120.0


@task
def nothing(value):
    return value


@flow
def warm_up():
    nothing.submit(0).result()


@flow
def fan_out(count):
    wait([nothing.submit(number) for number in range(count)])


@flow
def chain(count):
    value = nothing.submit(0)
    for _ in range(count - 1):
        value = nothing.submit(value)
    value.result()


def task_runner(kind):
    if kind == "threads":
        return ThreadPoolTaskRunner()
    import ray
    from prefect_ray import RayTaskRunner

    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    return RayTaskRunner()


def recorded(flow_run_id, count):
    """Wait until the record has them all."""
    query = "select count(*) from task_run where flow_run_id = ? and state_type = 'COMPLETED'"
    deadline = time.monotonic() + PATIENCE_SECONDS
    with sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=30) as database:
        while True:
            found = database.execute(query, (str(flow_run_id),)).fetchone()[0]
            if found >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


def main(kind, workload, count):
    chosen = {"fan_out": fan_out, "chain": chain}[workload]
    warm_up.with_options(task_runner=task_runner(kind))()
    started = time.perf_counter()
    state = chosen.with_options(task_runner=task_runner(kind))(count, return_state=True)
    state.result()
    returned = time.perf_counter() - started
    found = recorded(state.state_details.flow_run_id, count)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "returned": returned, "recorded": found}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
