"""`python -m raflow.server._openapi`: the description of the API, as the repository has it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import orjson

from raflow.server._app import make_app
from raflow.store import Store


def text() -> str:
    """Return the description as it is committed: JSON, indented, sorted."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        with Store.open(f"sqlite:///{home}/raflow.db", log_dir=home / "logs") as store:
            described = make_app(store, home=home).openapi()
    return (
        orjson.dumps(described, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(text())
