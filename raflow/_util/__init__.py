"""Small helpers that know nothing of raflow."""

from __future__ import annotations

from raflow._util._crash_points import CRASH_POINTS, crash_point
from raflow._util._ids import new_id, short_id
from raflow._util._makers import maker
from raflow._util._person import person
from raflow._util._versions import installed_packages, version_of

__all__ = [
    "CRASH_POINTS",
    "crash_point",
    "installed_packages",
    "maker",
    "new_id",
    "person",
    "short_id",
    "version_of",
]
