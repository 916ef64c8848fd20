"""The local backend: threads of this process, without Ray."""

from __future__ import annotations

from raflow.execute.local._backend import LocalBackend

__all__ = ["LocalBackend"]
