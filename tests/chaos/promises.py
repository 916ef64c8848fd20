"""The promises, as rules over what happened, what was said, and what is on record."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from raflow.model import Attempt, FlowRun, Outcome, StateName, StateType, TaskRun
from raflow.store import Store
from tests.chaos.journal import Ack, Entry, Event, Key, Promise, value_of

_NOBODY: Final = "No process drove it any more"
"""Is said of a run that was cancelled on record."""
_CLOCK_SLACK: Final = 0.005
_ENDING_SLACK: Final = 5.0
"""Seconds that raflow may take beyond the grace to end what runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that the store knows of some flow runs at one moment."""

    runs: Mapping[str, FlowRun]
    task_runs: Mapping[Key, TaskRun]
    attempts: Mapping[Key, tuple[Attempt, ...]]

    @classmethod
    def read(cls, store: Store) -> Record:
        """Read everything."""
        runs = {run.id: run for run in store.flow_runs(limit=None)}
        task_runs = {Key(run, *t.key): t for run in runs for t in store.task_runs(run)}
        attempts: defaultdict[Key, list[Attempt]] = defaultdict(list)
        for run in runs:
            for attempt in store.attempts(run):
                attempts[Key(run, *attempt.key)].append(attempt)
        tried = {key: tuple(found) for key, found in attempts.items()}
        return cls(runs=runs, task_runs=task_runs, attempts=tried)

    def of(self, runs: Collection[str]) -> Record:
        """Return the part of it that is about some flow runs."""
        return Record(
            runs={run: known for run, known in self.runs.items() if run in runs},
            task_runs={key: known for key, known in self.task_runs.items() if key.run in runs},
            attempts={key: known for key, known in self.attempts.items() if key.run in runs},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How often the calls of a task may run."""

    retries: int = 0
    crash_retries: int = 0
    once: bool = False
    """Whether a call may never run twice, whatever happens."""

    def executions(self, processes: int) -> int:
        """At most so many, if so many processes drove the run one after the other.

        What ran when one of them died, and was not on record, the next one runs again.
        """
        return 1 if self.once else self.retries + self.crash_retries + processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a scenario left, after everything has come to rest."""

    journal: tuple[Entry, ...]
    acks: tuple[Ack, ...]
    record: Record
    faults: tuple[str, ...]
    """What was done to it, and surely hit."""
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    """By task. A task that is not named has none."""
    earlier: tuple[Record, ...] = ()
    """What was on record whenever a process of the run had died, oldest first."""
    recomputed: frozenset[Key] = frozenset()
    """Whose values were lost, so that they may run again."""
    fenced: frozenset[tuple[Key, int]] = frozenset()
    """Attempts that were given up while they could not be ended: they may go on, in vain."""
    tolerated: frozenset[str] = frozenset()
    """Tasks whose failure the flow takes care of."""
    abandoned: bool = False
    """Whether the last process of the run died and nobody has taken over."""
    grace: float = 10.0
    """Seconds that running tasks have to stop after a cancel."""
    lease: float = 0.0
    """Seconds that what ran for a dead process may go on after the next one has begun it anew."""

    def begun(self) -> dict[Key, list[Entry]]:
        """The executions of each task run, oldest first."""
        found: defaultdict[Key, list[Entry]] = defaultdict(list)
        for entry in self.journal:
            if entry.event is Event.BEGUN:
                found[entry.key].append(entry)
        return found

    def of(self, *runs: str) -> Story:
        """The part of it that is about some flow runs."""
        return dataclasses.replace(
            self,
            journal=tuple(entry for entry in self.journal if entry.run in runs),
            acks=tuple(ack for ack in self.acks if ack.run in runs),
            record=self.record.of(runs),
            earlier=tuple(record.of(runs) for record in self.earlier),
        )

    def told(self, promise: Promise) -> Iterator[Ack]:
        """What clients were told of that kind."""
        return (ack for ack in self.acks if ack.promise is promise)


class Violation(NamedTuple):
    """A promise that was broken."""

    rule: str
    told: str


Rule: TypeAlias = Callable[[Story], Iterable[str]]


def broken(story: Story) -> list[Violation]:
    """Return every promise that was broken; a story without faults proves nothing."""
    return [Violation(name, told) for name, rule in RULES.items() for told in rule(story)]


def _a_fault_has_hit(story: Story) -> Iterator[str]:
    if not story.faults:
        yield "VOID: no fault hit"


def _accepted_runs_are_there(story: Story) -> Iterator[str]:
    for ack in story.told(Promise.ACCEPTED):
        if ack.run not in story.record.runs:
            yield f"run {ack.run} was accepted and is not on record"


def _was_brought_to_its_end(run: FlowRun) -> bool:
    """Whether there was somebody until the end to take note of everything."""
    return run.state.is_final and run.state.name is not StateName.CRASHED


def _attempts_are_recorded(story: Story) -> Iterator[str]:
    for key, entries in story.begun().items():
        run = story.record.runs.get(key.run)
        once = story.budgets.get(entries[0].task, Budget()).once
        attended = run is not None and _was_brought_to_its_end(run)
        if not once and (run is None or not attended or _NOBODY in run.state.message):
            continue
        # Of what began just before a process died nobody is left to tell.
        told = [e.attempt for e in entries if once or e.epoch > len(story.earlier)]
        known = story.record.task_runs.get(key)
        if not once and known is not None and known.state.name is StateName.CANCELLED:
            continue  # its process may have been ended before anybody heard that it had begun
        last = max(told, default=0)
        if last and (known is None or known.attempts < last):
            yield f"{key} began attempt {last}; {known.attempts if known else 'none'} on record"


def _recorded_results_are_not_recomputed(story: Story) -> Iterator[str]:
    for processes, record in enumerate(story.earlier, 1):
        for key, run in record.task_runs.items():
            if run.state.type is not StateType.COMPLETED or key in story.recomputed:
                continue
            later = [entry for entry in story.begun().get(key, ()) if entry.epoch > processes]
            if later:
                yield f"{key} completed in process {processes} and ran again in {later[0].epoch}"


def _budgets_are_kept(story: Story) -> Iterator[str]:
    for key, entries in story.begun().items():
        budget = story.budgets.get(entries[0].task, Budget())
        allowed = budget.executions(1 + len(story.earlier)) + (key in story.recomputed)
        if not budget.once:
            allowed += _bystander_losses(story.record.attempts.get(key, ()))
        if len(entries) > allowed:
            yield f"{key} of {entries[0].task!r} ran {len(entries)} times, {allowed} are allowed"


def _bystander_losses(attempts: Iterable[Attempt]) -> int:
    """Count the attempts whose process died at another call: nobody is charged for them."""
    lost = [attempt for attempt in attempts if attempt.outcome is Outcome.LOST]
    return sum(attempt.message.startswith("its process ended") for attempt in lost)


def _no_number_is_used_twice(story: Story) -> Iterator[str]:
    for key, entries in story.begun().items():
        used = [(entry.epoch, entry.attempt) for entry in entries]
        if len(set(used)) < len(used):
            yield f"{key} ran attempts {used}"


def _what_completed_has_run(story: Story) -> Iterator[str]:
    done = {(entry.key, entry.attempt) for entry in story.journal if entry.event is Event.DONE}
    told = {entry.key for entry in story.journal}
    for record in (*story.earlier, story.record):
        for key, run in record.task_runs.items():
            computed = run.state.name in {StateName.COMPLETED, StateName.RECOVERED}
            # A subflow is a run of its own.
            if computed and run.child_flow_run_id is None and (key, run.attempts) not in done:
                known = "it never ran" if key not in told else "that attempt did not"
                yield f"{key} is on record as completed by attempt {run.attempts}; {known}"


def _one_attempt_lives(story: Story) -> Iterator[str]:
    newest: dict[Key, Entry] = {}
    for entry in sorted(story.journal, key=lambda entry: entry.time):
        live = newest.setdefault(entry.key, entry)
        number, last = (entry.epoch, entry.attempt), (live.epoch, live.attempt)
        late = entry.time - live.time
        if number > last:
            newest[entry.key] = entry
        elif number < last and (entry.key, entry.attempt) not in story.fenced:
            allowed = 0.0 if entry.epoch == live.epoch else story.lease
            if late > allowed:
                yield f"{entry.key}: {number} was {entry.event} {late:.1f} s after {last} began"


def _the_newest_attempt_counts(story: Story) -> Iterator[str]:
    for key, run in story.record.task_runs.items():
        result = run.result
        if run.child_flow_run_id is not None:
            continue  # its value is of the attempts below
        if result is None or not result.preview.startswith("'by attempt "):
            continue
        if result.preview != repr(value_of(run.attempts)):
            yield f"{key} has {run.attempts} attempts, and the value {result.preview}"


def _runs_end(story: Story) -> Iterator[str]:
    for run in story.record.runs.values():
        if not run.state.is_final and not story.abandoned:
            yield f"run {run.id} is {run.state.name} after everything came to rest"


def _task_runs_end_with_their_run(story: Story) -> Iterator[str]:
    for key, task_run in story.record.task_runs.items():
        run = story.record.runs[key.run]
        if _was_brought_to_its_end(run) and not task_run.state.is_final:
            name = task_run.state.name
            yield f"run {run.id} is {run.state.name}, and its {task_run.label} is {name}"


def _ends_are_told_truly(story: Story) -> Iterator[str]:
    for ack in story.told(Promise.ENDED):
        # A run that was told to have failed may have been resumed since.
        records = [record.runs.get(ack.run) for record in (*story.earlier, story.record)]
        names = [run.state.name for run in records if run is not None]
        if ack.state not in names:
            yield f"run {ack.run} was told to be {ack.state}; {names} is on record"


def _success_is_whole(story: Story) -> Iterator[str]:
    fine = {StateType.COMPLETED, StateType.SKIPPED}
    for key, task_run in story.record.task_runs.items():
        run = story.record.runs[key.run]
        if task_run.task in story.tolerated or run.state.type is not StateType.COMPLETED:
            continue
        if task_run.state.type not in fine:
            yield f"run {run.id} completed, and its {task_run.label} is {task_run.state.name}"


def _nothing_begins_after_a_cancel(story: Story) -> Iterator[str]:
    cancelled = {ack.run: ack.time for ack in story.told(Promise.CANCELLING)}
    for entry in story.journal:
        asked = cancelled.get(entry.run)
        if asked is not None and entry.event is Event.BEGUN and entry.time > asked + _CLOCK_SLACK:
            yield f"{entry.key} began {entry.time - asked:.3f} s after the cancel was acknowledged"


def _what_ran_ends_after_a_cancel(story: Story) -> Iterator[str]:
    cancelled = {ack.run: ack.time for ack in story.told(Promise.CANCELLING)}
    for entry in story.journal:
        asked = cancelled.get(entry.run)
        if asked is not None and entry.time > asked + story.grace + _ENDING_SLACK:
            yield f"{entry.key} was {entry.event} {entry.time - asked:.1f} s after the cancel"


RULES: Final[Mapping[str, Rule]] = {
    "void": _a_fault_has_hit,
    "P1 an accepted run is never lost": _accepted_runs_are_there,
    "P2 attempts are recorded": _attempts_are_recorded,
    "P2 a recorded result is not recomputed": _recorded_results_are_not_recomputed,
    "P3 executions stay within the budget": _budgets_are_kept,
    "P3 what completed has run": _what_completed_has_run,
    "P4 no attempt runs twice": _no_number_is_used_twice,
    "P4 one attempt lives": _one_attempt_lives,
    "P4 the newest attempt counts": _the_newest_attempt_counts,
    "P7 every run ends": _runs_end,
    "P7 no task run outlives its run": _task_runs_end_with_their_run,
    "P7 a final state is told truly": _ends_are_told_truly,
    "P7 success is whole": _success_is_whole,
    "P8 nothing begins after a cancel": _nothing_begins_after_a_cancel,
    "P8 what ran ends after a cancel": _what_ran_ends_after_a_cancel,
}
