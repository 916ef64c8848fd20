"""What deploying a `raflow.yaml` would change, and doing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raflow import errors
from raflow.bundles import Limits, Manifest, Packed, pack
from raflow.define import find_flow
from raflow.model import ScheduleSpec
from raflow.model.schedule import describe
from raflow.runtime.deploying import Deploys, Prepared, Project, Wanted, prepare, refused, send
from raflow.service import changes, file_changes

if TYPE_CHECKING:
    from raflow.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done, or would be, about one thing of a file."""

    kind: Literal["pool", "limit", "deployment"]
    name: str
    action: Literal["make", "change", "keep", "remove"]
    """`remove`: it is on record as of this file, which does not have it any more."""
    details: tuple[str, ...] = ()
    """What is different, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What deploying a file would change."""

    steps: tuple[Step, ...]
    prepared: tuple[Prepared, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was not packed because it looks like a secret, in words."""
        return tuple(dict.fromkeys(text for one in self.prepared for text in one.packed.left_out))


def plan_project(
    project: Project, store: Store, *, names: Collection[str] = (), actor: str = "", note: str = ""
) -> Plan:
    """Load and pack what a file describes, and compare it with what is on record.

    Nothing is written.

    Args:
        project: The file.
        store: The record.
        names: Only these deployments, without pools, limits and what is no longer in the file.
            Default: all of it.
        actor: Who does this.
        note: What a person says about it.

    Raises:
        ProjectError: A flow cannot be loaded or packed, or does not take its parameters; says all
            that is wrong, with lines.
        NotFoundError: The file has no deployment of a name.
    """
    known = [wanted.name for wanted in project.deployments]
    for name in names:
        if name not in known:
            raise errors.NotFoundError.of("deployment", name, known, f"See {str(project.file)!r}.")
    chosen = [wanted for wanted in project.deployments if not names or wanted.name in names]
    prepared = _prepared(project, chosen, actor, note)
    steps = [] if names else [*_pools(project, store), *_limits(project, store)]
    steps += [_compared(store, one) for one in prepared]
    if not names:
        gone = (one.name for one in store.deployments.all() if one.spec.project == project.name)
        steps += [
            Step(kind="deployment", name=name, action="remove")
            for name in gone
            if name not in known
        ]
    return Plan(steps=tuple(steps), prepared=tuple(prepared))


def apply_plan(planned: Plan, project: Project, store: Store, to: Deploys, *, prune: bool) -> None:
    """Do what was planned; deploying again after half of it was done does the rest.

    Args:
        planned: What to do.
        project: The file.
        store: The record.
        to: What takes deployments.
        prune: Whether deployments are removed that the file does not have any more.
    """
    todo = {(step.kind, step.name) for step in planned.steps if step.action in {"make", "change"}}
    for pool in project.pools:
        if ("pool", pool.name) in todo:
            kept = next((s.pool for s in store.work.pools() if s.pool.name == pool.name), pool)
            store.work.set_pool(
                dataclasses.replace(
                    kept, concurrency=pool.concurrency, description=pool.description
                )
            )
    for limit in project.limits:
        if ("limit", limit.name) in todo:
            store.limits.set(limit)
    for one in planned.prepared:
        if ("deployment", one.name) in todo:
            send(one, to)
    for step in planned.steps if prune else ():
        if step.action == "remove":
            store.deployments.remove(step.name)


def _prepared(project: Project, chosen: Iterable[Wanted], actor: str, note: str) -> list[Prepared]:
    """Return the deployments, checked and packed: all of them, or what is wrong with any."""
    packs: dict[tuple[Path, tuple[str, ...], tuple[str, ...]], Packed] = {}

    def packing(root: Path, *, include: Sequence[str], exclude: Sequence[str]) -> Packed:
        key = (root, tuple(include), tuple(exclude))
        if key not in packs:
            packs[key] = pack(root, include=include, exclude=exclude)
        return packs[key]

    made, problems = [], []
    for wanted in chosen:
        path = ["deployments", wanted.name]
        try:
            made.append(
                prepare(
                    find_flow(wanted.flow).flow,
                    wanted.spec,
                    name=wanted.name,
                    schedules=wanted.schedules,
                    root=wanted.root,
                    include=wanted.include,
                    # It says what is done with the code: a change of it is no change of that.
                    exclude=[*wanted.exclude, project.file.name],
                    actor=actor,
                    note=note,
                    packing=packing,
                )
            )
        except errors.ParameterError as error:
            problems.append(project.problem([*path, "parameters"], error.message))
        except errors.BundleError as error:
            problems.append(project.problem([*path, "root"], error.message))
        except errors.RaflowError as error:
            problems.append(project.problem([*path, "flow"], error.message))
    if problems:
        raise refused(problems)
    return made


def _pools(project: Project, store: Store) -> list[Step]:
    known = {state.pool.name: state.pool for state in store.work.pools()}
    steps = []
    for pool in project.pools:
        old = known.get(pool.name)
        new = dataclasses.replace(pool, paused=old.paused, kind=old.kind) if old else pool
        steps.append(_step("pool", pool.name, old, new))
    return steps


def _limits(project: Project, store: Store) -> list[Step]:
    known = {state.limit.name: state.limit for state in store.limits.all()}
    return [_step("limit", one.name, known.get(one.name), one) for one in project.limits]


def _step(kind: Literal["pool", "limit"], name: str, old: object, new: object) -> Step:
    if old is None:
        return Step(kind=kind, name=name, action="make")
    if old == new:
        return Step(kind=kind, name=name, action="keep")
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)  # type: ignore[call-overload]  # one of the two
    told = [
        f"{key}: {_shown(before[key])} -> {_shown(after[key])}"
        for key in before
        if before[key] != after[key]
    ]
    return Step(kind=kind, name=name, action="change", details=tuple(told))


def _compared(store: Store, one: Prepared) -> Step:
    if store.deployments.uses(one.name, one.version):
        return Step(kind="deployment", name=one.name, action="keep")
    living = {found.name for found in store.deployments.all()}
    if one.name not in living:
        return Step(kind="deployment", name=one.name, action="make")
    before = store.deployments.version(one.name)
    told = [
        f"{path}: {_shown(old)} -> {_shown(new)}" for path, old, new in changes(before, one.version)
    ]
    if before.bundle != one.version.bundle:
        bundle = store.deployments.bundle(before.bundle)
        assert bundle is not None, "every version has its bundle on record"
        old_files = Manifest.parse(bundle.manifest, Limits())
        told += [
            f"{change} {path}" for path, change in file_changes(old_files, one.packed.manifest)
        ]
    return Step(kind="deployment", name=one.name, action="change", details=tuple(told))


def _shown(value: object) -> str:
    if isinstance(value, ScheduleSpec):
        rule = value.schedule.rule
        return f"{describe(rule)!r} {rule.timezone}"
    return "nothing" if value is None else repr(value)
