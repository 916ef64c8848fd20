"""Parameters that tell a run which slot it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from raflow.model.schedule._zones import zone

MARK: Final = "{slot"
"""What has none of it in its JSON text needs no filling."""
_SLOT: Final = re.compile(r"\{slot(?::([^{}]*))?\}")


def fill_slot(parameters: Mapping[str, Any], slot: datetime, timezone: str) -> dict[str, Any]:
    """Return parameters in whose texts, at any depth, `{slot}` stands for the slot.

    It is written as the clocks of a time zone show it: `2026-01-31T09:00:00+01:00`;
    `{slot:%Y-%m-%d}` writes it as `strftime` does.
    """
    local = slot.astimezone(zone(timezone))

    def written(match: re.Match[str]) -> str:
        return local.strftime(match[1]) if match[1] else local.isoformat(timespec="seconds")

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return _SLOT.sub(written, value) if MARK in value else value
        if isinstance(value, Mapping):
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [filled(part) for part in value]
        return value

    return {name: filled(value) for name, value in parameters.items()}
