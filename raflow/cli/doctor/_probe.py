"""The flow that `raflow doctor --ray` runs."""

from __future__ import annotations

from raflow import flow, task


@task
def answer() -> int:
    """Return a number."""
    return 42


@flow(name="raflow-doctor")
def probe() -> int:
    """Call one task."""
    return answer()
