"""The HTTP server: who asks is found out here, and what they ask is done by `raflow.service`."""

from __future__ import annotations

from raflow.server._app import PREFIX, make_app

__all__ = ["PREFIX", "make_app"]
