"""The workloads in Airflow: `python flows.py {fan_out,chain} COUNT`.

`dag.test()` reads the DAG from the folder that `AIRFLOW__CORE__DAGS_FOLDER` names (this one), runs
its tasks one after the other in this process, with no scheduler, and records them in Airflow's
database: SQLite under `AIRFLOW_HOME`, made by `airflow db migrate`.
"""

# Airflow lives in an environment of its own.
# mypy: ignore-errors

from __future__ import annotations

import json
import os
import sys
import time

from airflow.models.taskinstance import TaskInstance
from airflow.sdk import dag, task
from airflow.utils.session import create_session

COUNT = int(os.environ.setdefault("COUNT", sys.argv[-1]))


@task
def nothing(value):
    return value


@dag(schedule=None)
def fan_out():
    for number in range(COUNT):
        nothing.override(task_id=f"task_{number}")(number)


@dag(schedule=None)
def chain():
    value = nothing.override(task_id="task_0")(0)
    for number in range(1, COUNT):
        value = nothing.override(task_id=f"task_{number}")(value)


DAGS = {"fan_out": fan_out(), "chain": chain()}


def recorded(run):
    with create_session() as session:
        query = session.query(TaskInstance).filter_by(
            dag_id=run.dag_id, run_id=run.run_id, state="success"
        )
        return query.count()


def main(workload):
    started = time.perf_counter()
    run = DAGS[workload].test()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "returned": seconds, "recorded": recorded(run)}))


if __name__ == "__main__":
    main(sys.argv[1])
