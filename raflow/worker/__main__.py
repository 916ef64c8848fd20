"""`python -m raflow.worker`: a worker as a process of its own; `raflow worker` becomes this."""

from __future__ import annotations

import argparse
import sys

from raflow import config, errors
from raflow.worker._process import work


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="raflow worker", description=__doc__)
    parser.add_argument("--pool", default="default")
    parser.add_argument("--name", default="")
    parser.add_argument("--runners", type=int, default=0)
    parser.add_argument("--drain-seconds", type=float, default=60.0)
    parser.add_argument("--backend", choices=["ray", "local"])
    parser.add_argument("--ray-address")
    parser.add_argument("--api-url")
    return parser.parse_args()


def main() -> int:
    """Run a worker; return the exit code, which is that of the command line."""
    given = _parse()
    try:
        settings = config.load(
            backend=given.backend, ray_address=given.ray_address, api_url=given.api_url
        )
        return work(
            settings,
            pool=given.pool,
            runners=given.runners,
            name=given.name,
            drain_seconds=given.drain_seconds,
        )
    except errors.RaflowError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return 3


if __name__ == "__main__":
    sys.exit(main())
