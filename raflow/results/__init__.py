"""What is known about the values of task runs, and where they are kept."""

from __future__ import annotations

from raflow.results._describe import PREVIEW_LIMIT
from raflow.results._keeper import INLINE_LIMIT, Keeper, read_result
from raflow.results._keys import signing_key
from raflow.results._storage import check_storage

__all__ = [
    "INLINE_LIMIT",
    "PREVIEW_LIMIT",
    "Keeper",
    "check_storage",
    "read_result",
    "signing_key",
]
