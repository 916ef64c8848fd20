"""The record of every flow run, behind one door; in SQLite or PostgreSQL.

The only package that knows SQL.
"""

from __future__ import annotations

from raflow.store._engine import without_passwords
from raflow.store._queries import FlowSummary
from raflow.store._schema import EXPECTED_REVISION, current_revision, upgrade
from raflow.store._store import Store

__all__ = [
    "EXPECTED_REVISION",
    "FlowSummary",
    "Store",
    "current_revision",
    "upgrade",
    "without_passwords",
]
