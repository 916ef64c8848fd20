"""Small helpers that know nothing of raflow."""

from __future__ import annotations

from raflow._util._ids import new_id
from raflow._util._versions import version_of

__all__ = ["new_id", "version_of"]
