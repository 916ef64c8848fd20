"""A look at a database without SQLAlchemy: importing that takes longer than a short flow."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

HEAD: Final = "0007"
"""The revision that this code needs."""

_PREFIX: Final = "sqlite:///"
_SIMPLE: Final = frozenset("?%#")
"""Characters that would have to be understood."""


def is_ready(url: str) -> bool:
    """Tell whether a database is surely one that can be opened and written as it is.

    Args:
        url: The database. Only SQLite files that are there already are ever sure.
    """
    path = url.removeprefix(_PREFIX)
    if path == url or not path.startswith("/") or not _SIMPLE.isdisjoint(path):
        return False
    if not all(os.access(there, os.W_OK) for there in (path, Path(path).parent)):
        return False
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.1)
        try:
            found = connection.execute("SELECT version_num FROM raflow_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return False
    return bool(found == (HEAD,))
