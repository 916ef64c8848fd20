"""Finds out why a worker process has died, from all that is left of it."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable
from typing import Final

from raflow.execute.ray._blackbox import fault_in
from raflow.execute.ray._cells import Remains
from raflow.execute.ray._losses import MORE_MEMORY, Loss
from raflow.model import Cause, Outcome

_DIED: Final = "its worker process died"
_NODE: Final = re.compile(r"\(IP: ([^,)\s]+), ID: (\w+)\)")
_DEAD_NODE: Final = re.compile(r"Node IP: ([^,\s]+), node ID: (\w+)")
_USE: Final = re.compile(r"was ([\d.]+\w?B / [\d.]+\w?B \([\d.]+\))")


def explain(
    loss: Loss,
    remains: Remains | None,
    *,
    is_starved: Callable[[Remains], bool],
    node_id: str = "",
) -> Loss:
    """Say more about the end of a process.

    Args:
        loss: What Ray says.
        remains: What is left of the process, if it was found.
        is_starved: Whether the kernel has killed a process there for want of memory just now.
        node_id: The node it ran on, if that is known.
    """
    known = _known(loss, remains, node_id)
    if loss.outcome is Outcome.TIMED_OUT:
        return loss._replace(cause=dataclasses.replace(known, kind="time limit"))
    if loss.outcome is Outcome.CANCELLED:
        return loss._replace(cause=dataclasses.replace(known, kind="cancelled", signal=9))
    if loss.outcome is Outcome.OUT_OF_MEMORY:
        return _out_of_memory(loss, known)
    if loss.outcome is not Outcome.CRASHED or remains is None:
        return loss._replace(cause=known)
    return _crash(remains, known, is_starved)


def _known(loss: Loss, remains: Remains | None, node_id: str) -> Cause:
    kind = "process died" if loss.cause is None else loss.cause.kind
    if remains is None:
        return Cause(kind=kind, node_id=node_id)
    return Cause(
        kind=kind,
        host=remains.host,
        pid=remains.pid,
        node_id=node_id,
        peak_memory=remains.peak_memory,
    )


def _out_of_memory(loss: Loss, known: Cause) -> Loss:
    node, use = _NODE.search(loss.detail), _USE.search(loss.detail)
    cause = dataclasses.replace(
        known,
        kind="out of memory",
        signal=int(signal.SIGKILL),
        host=known.host or (node[1] if node else ""),
        node_id=known.node_id or (node[2] if node else ""),
        facts={"by": "Ray's memory monitor"} | ({"memory of the node": use[1]} if use else {}),
    )
    return loss._replace(cause=cause, message=f"{loss.message}{_used(cause)}")


def _crash(remains: Remains, known: Cause, is_starved: Callable[[Remains], bool]) -> Loss:
    where = f"process {remains.pid} on {remains.host}"
    fault = fault_in(remains.fault)
    if fault is not None:
        number = None if fault.signal is None else int(fault.signal)
        name = "" if fault.signal is None else f"{fault.signal.name}, "
        at = f" in {fault.where}" if fault.where else ""
        cause = dataclasses.replace(
            known, kind="signal", signal=number, facts={"where": fault.where} if at else {}
        )
        return Loss(
            Outcome.CRASHED,
            f"{_DIED} ({name}{fault.text.lower()}){at}; it was {where}",
            cause=cause,
        )
    if remains.signal is not None:
        name = signal.Signals(remains.signal).name
        cause = dataclasses.replace(known, kind="signal", signal=remains.signal)
        return Loss(
            Outcome.CRASHED, f"{_DIED}: it was asked to end by {name}; it was {where}", cause=cause
        )
    if remains.exit_code is not None:
        code = remains.exit_code
        cause = dataclasses.replace(known, kind="exit", exit_code=code)
        return Loss(
            Outcome.CRASHED,
            f"{_DIED}: the code ended it by os._exit({code}); it was {where}",
            cause=cause,
        )
    killed = int(signal.SIGKILL)
    if is_starved(remains):
        cause = dataclasses.replace(
            known, kind="out of memory", signal=killed, facts={"by": "the kernel"}
        )
        message = (
            f"the kernel killed its worker process for want of memory (SIGKILL; {where})"
            f"{_used(cause)}. {MORE_MEMORY}"
        )
        return Loss(Outcome.OUT_OF_MEMORY, message, cause=cause)
    cause = dataclasses.replace(known, kind="killed", signal=killed)
    message = (
        f"{_DIED} without a word, as after SIGKILL: it was killed from outside, or a library ended "
        f"it; it was {where}"
    )
    return Loss(Outcome.CRASHED, message, cause=cause)


def _used(cause: Cause) -> str:
    if not cause.peak_memory:
        return ""
    return f"; it had used {cause.peak_memory / (1 << 20):,.0f} MiB"


def lost_with_node(loss: Loss, node_id: str) -> Loss:
    """Say which node it was, if it is known: by what Ray says, or by where the batch ran."""
    if loss.cause is None:
        return loss
    told = _DEAD_NODE.search(loss.detail)
    host, named = told.groups() if told else ("", "")
    return loss._replace(cause=dataclasses.replace(loss.cause, host=host, node_id=node_id or named))


def fell_silent(seconds: float, state: str, cause: Cause) -> Loss:
    """Describe a process that was given up because it said nothing any more.

    Args:
        seconds: How long it was silent.
        state: What the kernel said of it, `T` for stopped; empty if nothing was to be learned.
        cause: Which process it was.
    """
    why = {"T": ": it was stopped (SIGSTOP)", "": ": its node cannot be reached"}.get(state, "")
    return Loss(
        Outcome.LOST,
        f"its process ({cause.pid} on {cause.host}) has not answered for {seconds:g} s{why}; it "
        "was ended",
        cause=dataclasses.replace(cause, kind="no answer", facts={"state": state} if state else {}),
    )
