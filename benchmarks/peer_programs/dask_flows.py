"""The workloads in Dask distributed: `python dask_flows.py {fan_out,chain} COUNT`.

One worker process a core, each with one thread. Dask keeps no record: its scheduler knows which
tasks are in memory, and forgets them with the cluster.
"""

# Dask lives in an environment of its own.
# mypy: ignore-errors

from __future__ import annotations

import json
import os
import sys
import time

from distributed import Client, LocalCluster, wait


def nothing(value):
    return value


def fan_out(client, count):
    futures = client.map(nothing, range(count), pure=False)
    wait(futures)
    return futures


def chain(client, count):
    futures = [client.submit(nothing, 0, pure=False)]
    for _ in range(count - 1):
        futures.append(client.submit(nothing, futures[-1], pure=False))
    futures[-1].result()
    return futures


def in_memory(client):
    def count(dask_scheduler):
        return sum(task.state == "memory" for task in dask_scheduler.tasks.values())

    return client.run_on_scheduler(count)


def main(workload, count):
    chosen = {"fan_out": fan_out, "chain": chain}[workload]
    with (
        LocalCluster(
            n_workers=os.cpu_count(), threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.submit(nothing, -1, pure=False).result()
        started = time.perf_counter()
        futures = chosen(client, count)
        seconds = time.perf_counter() - started
        found = in_memory(client)
        del futures
    print(json.dumps({"seconds": seconds, "returned": seconds, "recorded": found}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
