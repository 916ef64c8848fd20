"""A module that can stand where `raflow.runtime` stands."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from raflow.define import Flow


def run_flow(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    return SimpleNamespace(unwrap=lambda: f"some runner ran {flow.name}")
