"""Runs the graphs of `metg.py` in Dask: each line `[pattern, width, steps, seconds]` is one run.

Answers with the number of tasks that were run; its argument is the number of cores.
"""

# Dask lives in an environment of its own.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys

import dask
from distributed import Client, LocalCluster

from benchmarks._work import inputs, spin


@dask.delayed(pure=False, traverse=False)
def work(seconds, *_):
    spin(seconds)
    return 1


def graph(pattern, width, steps, seconds):
    made = row = [work(seconds) for _ in range(width)]
    for step in range(1, steps):
        row = [
            work(seconds, *[row[at] for at in inputs(pattern, step, column, width)])
            for column in range(width)
        ]
        made = made + row
    return made


def main(cores):
    with (
        LocalCluster(n_workers=cores, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        for line in sys.stdin:
            values = dask.compute(*graph(*json.loads(line)), optimize_graph=False)
            print(sum(values), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
