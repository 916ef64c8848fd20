"""Following a run of a deployment, which a worker runs: its states, its log, why it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

from raflow.cli import _console, _format, _log_lines, _logs, _show, _standing, _watch
from raflow.cli._errors import ExitCode
from raflow.model import FlowRun, Stage, StateName, StateType
from raflow.store import Store

_LOOK_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 1.5
"""A worker that is free takes a run sooner: nobody needs to be told that it waits."""


def to_the_end(
    store: Store, run: FlowRun, *, json_: bool, quiet: bool = False, only_new: bool = False
) -> ExitCode:
    """Follow a run, and print what came of it; return the exit code of the command.

    Ctrl-C ends the following, and not the run.

    Args:
        store: The record.
        run: A run of a deployment.
        json_: Whether to print what came of it for programs.
        quiet: Whether to print nothing else.
        only_new: Whether to leave out what has happened to it before.
    """
    err = _console.err()
    console = Console(quiet=True) if quiet else err
    try:
        run = follow(store, run, console=console, only_new=only_new)
    except KeyboardInterrupt:
        told = f"The run goes on. `raflow cancel {run.short_name}` cancels it."
        err.print(told, markup=False, soft_wrap=True)
        return ExitCode.CANCELLED
    if json_:
        _console.emit_json(_show.as_json(store, run))
    else:
        err.print()
        _show.print_run(store, run, out=_console.out(), brief=True)
    return _watch.code_of(run)


def follow(store: Store, run: FlowRun, *, console: Console, only_new: bool = False) -> FlowRun:
    """Print what happens to a run until it is over or suspended; return it as it is then."""
    followed = _Followed(store, run.id, Console(quiet=True) if only_new else console)
    if only_new:
        followed.look(run)
        followed.console = console
    while True:
        # One that was over goes on when a worker takes it: until then it has a place.
        place = store.work.dispatch(run.id)
        run = store.flow_run(run.id)
        followed.look(run)
        if (place is None and run.state.is_final) or (place and place.stage is Stage.PARKED):
            return run
        time.sleep(_LOOK_SECONDS)


class _Followed:
    """What has been printed of a run."""

    def __init__(self, store: Store, flow_run_id: str, console: Console) -> None:
        self._store = store
        self._id = flow_run_id
        self.console = console
        self._states = 0
        self._logs: _logs.Logs | None = None
        self._waits: tuple[str, ...] = ()
        self._since = time.monotonic()

    def look(self, run: FlowRun) -> None:
        """Print what is new, given the run as it was just before."""
        lines = [*self._new_states(), *self._new_lines(run)]
        for _, text in sorted(lines, key=lambda line: line[0]):
            self.console.print(text, soft_wrap=True)
        if time.monotonic() - self._since > _PATIENCE_SECONDS:
            self._say_why(run)

    def _new_states(self) -> Iterator[tuple[float, Text]]:
        states = [change.state for change in self._store.states(self._id)]
        for state in states[self._states :]:
            self._since = time.monotonic()
            if state.type is not StateType.PENDING or state.name is StateName.SUBMITTED:
                more = "; ".join(filter(None, (state.message, state.reason)))
                badge = _console.badge(state.type)
                yield state.at, _line(state.at, badge, state.name.value, more)
        self._states = len(states)

    def _new_lines(self, run: FlowRun) -> Iterator[tuple[float, Text]]:
        if run.started_at is None:
            return
        self._logs = self._logs or _logs.Logs(self._store, run)
        for line, origin in self._logs.new_lines():
            yield line.at, _log_lines.log_text(line, origin.label)

    def _say_why(self, run: FlowRun) -> None:
        told = tuple(map(_standing.in_words, _standing.waits_for(self._store, run)))
        if told != self._waits:
            for text in told:
                badge = _console.badge(StateType.SCHEDULED)
                line = _line(time.time(), badge, "Waits", text)
                self.console.print(line, soft_wrap=True)
        self._waits = told


def _line(at: float, badge: Text, name: str, more: str) -> Text:
    text = Text.assemble((f"{_format.clock(at)} ", "dim"), badge, f" {name:<14}")
    return text.append(more, style="dim")
