"""The workloads in Dagster: `python dagster_flows.py {fan_out,chain} COUNT`.

The job runs in process, on an instance that keeps runs and events in SQLite under `DAGSTER_HOME`.
(Dagster's multiprocess executor starts a process for each step, which takes over a second.)
"""

# Dagster lives in an environment of its own.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys
import time

from dagster import DagsterEventType, DagsterInstance, In, job, op


@op
def first():
    return 0


@op(ins={"value": In()})
def nothing(value):
    return value


@job
def warm_up():
    first()


def fan_out(count):
    @job
    def fan_out_job():
        for number in range(count):
            first.alias(f"task_{number}")()

    return fan_out_job


def chain(count):
    @job
    def chain_job():
        value = first()
        for number in range(1, count):
            value = nothing.alias(f"task_{number}")(value)

    return chain_job


def main(workload, count):
    with DagsterInstance.get() as instance:
        chosen = {"fan_out": fan_out, "chain": chain}[workload](count)
        warm_up.execute_in_process(instance=instance)
        started = time.perf_counter()
        result = chosen.execute_in_process(instance=instance)
        seconds = time.perf_counter() - started
        succeeded = instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_SUCCESS)
    print(json.dumps({"seconds": seconds, "returned": seconds, "recorded": len(succeeded)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
