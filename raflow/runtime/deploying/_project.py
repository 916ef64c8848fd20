"""`raflow.yaml`: deployments, pools and limits that a file describes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from raflow import errors
from raflow.model import DeploymentSpec, Limit, OnCrash, Pool, ScheduleSpec
from raflow.model.schedule import CatchUp, Dst, Overlap, WrittenSchedule
from raflow.runtime.deploying import _yaml

PROJECT_FILE: Final = "raflow.yaml"
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
_RULES: Final = ("cron", "interval", "rrule", "at")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ScheduleForm(_Form):
    """When a deployment runs by itself. One of cron, interval, rrule and at is given."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    cron: str = ""
    """When clocks show this: `30 2 * * mon-fri`."""
    interval: str = ""
    """Every so often: `10m`, `1h30m`, `1d`."""
    rrule: str = ""
    """A rule of calendars: `DTSTART:... RRULE:FREQ=...`."""
    at: str = ""
    """Once: `2026-01-31T09:00`."""
    timezone: str | None = None
    """The clocks that it goes by: `Europe/Paris`. Default: that of `defaults`, else UTC."""
    dst: Dst | None = None
    """For cron: what becomes of times that clocks skip or show twice."""
    seconds: bool = False
    """Whether the cron expression begins with a field for seconds."""
    start: str = ""
    """A time before which nothing runs."""
    end: str = ""
    """A time after which nothing runs."""
    jitter: str = ""
    """Runs begin by up to so much later: `5m`."""
    overlap: Overlap | None = None
    """What a slot does that comes while runs of the schedule are not over. Default: skip."""
    catch_up: CatchUp | None = None
    """Which slots still run that came while nobody was there. Default: all."""
    window: str = ""
    """How long after its time a slot still runs. Default: 1h."""
    at_most: int | None = None
    """How many of its runs wait at the same time. Default: 100."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """In place of those of the deployment; `{slot}` in a text is the time of the slot."""
    active: bool = True
    """Whether it starts runs."""


class Defaults(_Form):
    """What holds for each deployment that does not say it itself."""

    pool: str = "default"
    """The work pool whose workers run it."""
    timezone: str = "UTC"
    """The clocks that schedules go by: `Europe/Paris`."""
    tags: tuple[str, ...] = ()
    """Tags of its runs."""
    root: str | None = None
    """The folder that is packed, from that of this file. Default: the first one above the flow's
    file with a pyproject.toml or .git, else the flow's own."""
    include: tuple[str, ...] = ()
    """Files that are packed in any case."""
    exclude: tuple[str, ...] = ()
    """What is left out, as in .gitignore."""


class DeploymentForm(_Form):
    """A flow with its code, and how and when it runs."""

    flow: str
    """FILE:FLOW, from the folder of this file; or a module: `flows/etl.py:etl`."""
    pool: str | None = None
    """The work pool whose workers run it."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Those that its runs get unless they are given others."""
    tags: tuple[str, ...] | None = None
    """Tags of its runs."""
    priority: int = 0
    """Runs with a higher one begin first."""
    concurrency: int | None = Field(default=None, ge=1)
    """How many of its runs may go on at once. Default: any number."""
    on_crash: OnCrash = OnCrash.RESUME
    """What becomes of a run whose process died."""
    max_resumes: int = Field(default=3, ge=0)
    """How often a run goes on by itself after its process died."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables that are set before its code is loaded. No place for secrets."""
    packages: Literal["check", "ignore"] = "check"
    """Whether a worker must have the Python and the packages of the version."""
    description: str = ""
    """For people."""
    root: str | None = None
    """The folder that is packed, from that of this file."""
    include: tuple[str, ...] | None = None
    """Files that are packed in any case."""
    exclude: tuple[str, ...] | None = None
    """What is left out, as in .gitignore."""
    schedules: dict[_Name, ScheduleForm] = Field(default_factory=dict)
    """When it runs by itself, by name."""


class PoolForm(_Form):
    """A work pool."""

    concurrency: int | None = Field(default=None, ge=0)
    """How many of its runs may be under way at the same time. Default: any number."""
    description: str = ""
    """For people."""


class LimitForm(_Form):
    """How much of something all flow runs may use together."""

    slots: int = Field(ge=0)
    """How many slots there are."""
    per_seconds: float = Field(default=0.0, ge=0)
    """0: slots are given back. Otherwise a rate: so many slots in this time."""


class ProjectForm(_Form):
    """What `raflow deploy` brings about: deployments, work pools and limits."""

    project: _Name
    """A name that tells what this file describes from what other files do."""
    defaults: Defaults = Defaults()
    """What holds for each deployment that does not say it itself."""
    pools: dict[str, PoolForm] = Field(default_factory=dict)
    """Work pools, by name."""
    limits: dict[str, LimitForm] = Field(default_factory=dict)
    """Limits that tasks take slots of, by name."""
    deployments: dict[_Name, DeploymentForm] = Field(default_factory=dict)
    """Deployments, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A deployment that a file describes."""

    name: str
    flow: str
    """As `find_flow` takes it."""
    spec: DeploymentSpec
    schedules: tuple[ScheduleSpec, ...]
    root: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a file describes."""

    file: Path
    name: str
    pools: tuple[Pool, ...]
    limits: tuple[Limit, ...]
    deployments: tuple[Wanted, ...]
    places: _yaml.Placed
    """On which lines it says what."""

    def problem(self, path: Sequence[str], message: str) -> str:
        """Return a text about something in the file: where it is, and what is wrong."""
        return _told(self.file, self.places, tuple(path), message)


def project_schema() -> str:
    """Return the JSON Schema of `raflow.yaml`, as text."""
    form = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ProjectForm.model_json_schema(),
        "title": PROJECT_FILE,
    }
    return json.dumps(form, indent=2, ensure_ascii=False) + "\n"


def read_project(file: Path) -> Project:
    """Read a `raflow.yaml`; loads no code.

    Raises:
        ProjectError: It cannot be read; names file, line, key, what is wrong and how to mend it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise errors.ProjectError(
            f"There is no file {str(file)!r}. Write one, name it with -f, or deploy one flow: "
            "raflow deploy FILE[:FLOW]."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ProjectError(f"{str(file)!r} cannot be read: {error}") from error
    try:
        placed = _yaml.read(text)
    except _yaml.NotYamlError as error:
        raise refused([f"{file}:{error.line}: {error}"]) from error
    try:
        form = ProjectForm.model_validate({} if placed.value is None else placed.value)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        found.sort(key=lambda one: placed.line(one["loc"]))
        raise refused([_wrong(file, placed, one["loc"], one) for one in found]) from error
    return _project(file, form, placed)


def refused(problems: Sequence[str]) -> errors.ProjectError:
    """Return the error that says all that is wrong with a file."""
    return errors.ProjectError("\n".join(problems), problems=list(problems))


def _project(file: Path, form: ProjectForm, placed: _yaml.Placed) -> Project:
    problems: list[str] = []
    wanted = []
    for name, one in form.deployments.items():
        schedules = []
        for its, schedule in one.schedules.items():
            path = ("deployments", name, "schedules", its)
            try:
                schedules.append(_schedule(its, schedule, form.defaults))
            except errors.ScheduleError as error:
                rule = next((key for key in _RULES if getattr(schedule, key)), "")
                problems.append(_told(file, placed, (*path, rule) if rule else path, error.message))
        wanted.append(_wanted(file, form, name, one, tuple(schedules)))
    if problems:
        raise refused(problems)
    return Project(
        file=file,
        name=form.project,
        pools=tuple(
            Pool(name=name, concurrency=one.concurrency, description=one.description)
            for name, one in form.pools.items()
        ),
        limits=tuple(
            Limit(name=name, slots=one.slots, per_seconds=one.per_seconds)
            for name, one in form.limits.items()
        ),
        deployments=tuple(wanted),
        places=placed,
    )


def _wanted(
    file: Path,
    form: ProjectForm,
    name: str,
    one: DeploymentForm,
    schedules: tuple[ScheduleSpec, ...],
) -> Wanted:
    default, folder = form.defaults, file.absolute().parent
    root = one.root if one.root is not None else default.root
    place = one.flow.partition(":")[0]
    is_file = place.endswith(".py") or "/" in place
    return Wanted(
        name=name,
        flow=str(folder / one.flow) if is_file else one.flow,
        spec=DeploymentSpec(
            flow="",
            entrypoint="",
            pool=one.pool if one.pool is not None else default.pool,
            parameters=one.parameters,
            tags=one.tags if one.tags is not None else default.tags,
            priority=one.priority,
            concurrency=one.concurrency,
            on_crash=one.on_crash,
            max_resumes=one.max_resumes,
            environment=one.environment,
            packages=one.packages,
            description=one.description,
            project=form.project,
        ),
        schedules=schedules,
        root=None if root is None else folder / root,
        include=one.include if one.include is not None else default.include,
        exclude=one.exclude if one.exclude is not None else default.exclude,
    )


def _schedule(name: str, form: ScheduleForm, defaults: Defaults) -> ScheduleSpec:
    written = WrittenSchedule(
        **{key: getattr(form, key) for key in (*_RULES, "start", "end", "jitter", "window")},
        timezone=form.timezone or defaults.timezone,
        dst=form.dst or "",
        seconds=form.seconds,
        overlap=form.overlap or "",
        catch_up=form.catch_up or "",
        at_most=form.at_most,
    )
    return ScheduleSpec(
        name=name,
        schedule=written.schedule(),
        policy=written.policy(),
        parameters=form.parameters,
        active=form.active,
    )


# --- What is wrong --------------------------------------------------------------------------------

_FORMS: Final[Mapping[str, type[_Form]]] = {
    "deployments": DeploymentForm,
    "schedules": ScheduleForm,
    "pools": PoolForm,
    "limits": LimitForm,
}


class _Known(NamedTuple):
    """What may stand where something is wrong."""

    fields: Mapping[str, pydantic.fields.FieldInfo]
    key: str


def _known(path: _yaml.Path) -> _Known | None:
    """Return the keys that may stand beside the last one of a path; None: any may."""
    form: type[_Form] = ProjectForm
    here: type[_Form]
    steps: Iterator[str | int] = iter(path)
    for step in steps:
        key = str(step)
        if key == "defaults" and form is ProjectForm:
            here, form = form, Defaults
        elif key in _FORMS and key in form.model_fields:
            here, form = form, _FORMS[key]
            if next(steps, None) is None:
                return _Known(here.model_fields, key)
            continue
        else:
            return _Known(form.model_fields, key)
        if path[-1] == step:
            return _Known(here.model_fields, key)
    return None


def _wrong(file: Path, placed: _yaml.Placed, path: _yaml.Path, error: Mapping[str, Any]) -> str:
    """Return what is wrong, where, and how to mend it."""
    if path and path[-1] == "[key]":
        rule = "Write up to 100 small letters, digits, '.', '_' and '-', beginning with a letter."
        return _told(file, placed, path[:-1], f"{path[-2]!r} is no name. {rule}")
    known = _known(path)
    kind = error["type"]
    if kind == "extra_forbidden" and known is not None:
        near = errors.closest(known.key, known.fields)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known.fields)}."
        return _told(file, placed, path, f"there is no such key. {hint}")
    about = known.fields.get(known.key) if known is not None else None
    means = " ".join((about.description or "").split()) if about is not None else ""
    if kind == "missing":
        return _told(file, placed, path, f"this key is missing. {means}".strip())
    if kind in {"model_type", "dict_type"}:
        said = f"keys and values belong here, not {error['input']!r}"
    else:
        rule = str(error["msg"]).partition(", unable to")[0].replace("Input", "this", 1)
        said = f"{rule}, not {error['input']!r}"
    return _told(file, placed, path, f"{said}. {means}".strip())


def _told(file: Path, placed: _yaml.Placed, path: _yaml.Path, message: str) -> str:
    where = ".".join(map(str, path))
    return f"{file}:{placed.line(path)}: {where}{': ' if where else ''}{message}"
