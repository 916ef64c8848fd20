"""The Ray backend: worker processes on this machine or on a cluster. Importing it imports Ray."""

from __future__ import annotations

from raflow.execute.ray._backend import RayBackend

__all__ = ["RayBackend"]
