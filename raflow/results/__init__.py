"""What is known about the values of task runs, and where they are kept."""

from __future__ import annotations

from raflow.results._keeper import Keeper, read_result
from raflow.results._keys import signing_key
from raflow.results._storage import check_storage

__all__ = [
    "Keeper",
    "check_storage",
    "read_result",
    "signing_key",
]
