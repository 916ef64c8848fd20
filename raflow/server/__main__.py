"""`python -m raflow.server`: the server as a process of its own; `raflow server` becomes this."""

from __future__ import annotations

import argparse
import sys

from raflow import config, errors
from raflow.server import _run


def _parse(settings: config.Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="raflow server", description=__doc__)
    parser.add_argument("--host", default=settings.server_host)
    parser.add_argument("--port", type=int, default=settings.server_port)
    parser.add_argument("--tls-cert", default="")
    parser.add_argument("--tls-key", default="")
    parser.add_argument("--behind-proxy", default="", metavar="ADDRESSES")
    parser.add_argument("--link", action="store_true", help="print a sign-in link, and end")
    return parser.parse_args()


def main() -> int:
    """Run a server; return the exit code, which is that of the command line."""
    try:
        settings = config.load()
        given = _parse(settings)
        if given.link:
            sys.stdout.write(f"{_run.signin_link(settings)}\n")
            return 0
        _run.log_to_stderr(settings.log_level)
        listen = _run.Listen(
            host=given.host,
            port=given.port,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            behind_proxy=given.behind_proxy,
        )
        _run.serve(settings, listen)
    except errors.RaflowError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
