"""The workloads in raflow: `python raflow_flows.py {ray,local} {fan_out,chain} COUNT`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Literal

from raflow import Flow, config, flow, task
from raflow.model import StateType
from raflow.store import Store


@task
def nothing(value: int) -> int:
    return value


@flow
def warm_up() -> None:
    nothing(0)


@flow
def fan_out(count: int) -> None:
    for number in range(count):
        nothing(number)


@flow
def chain(count: int) -> int:
    value = nothing(0)
    for _ in range(count - 1):
        value = nothing(value)
    return value.result()


FLOWS: dict[str, Flow[[int], Any]] = {"fan_out": fan_out, "chain": chain}


def recorded(flow_run_id: str) -> int:
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        counts = store.task_run_counts(flow_run_id).values()
    return sum(states.get(StateType.COMPLETED, 0) for states in counts)


def main(backend: Literal["ray", "local"], workload: str, count: int) -> None:
    chosen = FLOWS[workload].with_options(backend=backend)
    warm_up.with_options(backend=backend)()
    started = time.perf_counter()
    outcome = chosen.run(count)
    seconds = time.perf_counter() - started
    outcome.unwrap()
    found = recorded(outcome.flow_run.id)
    print(json.dumps({"seconds": seconds, "returned": seconds, "recorded": found}))


if __name__ == "__main__":
    main("ray" if sys.argv[1] == "ray" else "local", sys.argv[2], int(sys.argv[3]))
