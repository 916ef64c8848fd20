"""Ordering a run of a deployment: what it gets from the deployment, and whether that fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raflow import errors
from raflow._util import new_id
from raflow.model._deployment import Deployment, DeploymentVersion, OnCrash
from raflow.model._origin import RunOrigin
from raflow.model._work import RunOrder
from raflow.model.schedule import MARK

if TYPE_CHECKING:
    import jsonschema


def order_of(
    deployment: Deployment,
    version: DeploymentVersion,
    parameters: Mapping[str, Any],
    *,
    begins_at: float | None = None,
    name: str = "",
    tags: tuple[str, ...] = (),
    key: str = "",
    actor: str = "",
) -> RunOrder:
    """Return the order of a run of a deployment.

    Args:
        deployment: The deployment as it stands.
        version: The version of it that the run is of.
        parameters: In place of those of the deployment, in their JSON form.
        begins_at: When it begins at the earliest. Default: now.
        name: Of the run. Default: made from the flow's name.
        tags: Of the run, besides those of the deployment.
        key: Ordering again under the same key is the same order. Default: none.
        actor: Who orders.

    Raises:
        ParameterError: The flow does not take the parameters.
    """
    spec = deployment.spec
    # What is to tell the slot tells nothing here, where there is none.
    usual = {n: v for n, v in version.spec.parameters.items() if MARK not in json.dumps(v)}
    given = {**usual, **parameters}
    check_parameters(version.parameter_schema, given, of=f"Deployment {deployment.name!r}")
    run = new_id()
    said = [dict(parameters), list(tags), name, begins_at is not None]
    return RunOrder(
        flow_run_id=run,
        flow=deployment.flow,
        fingerprint=version.fingerprint,
        name=name or f"{deployment.flow}-{run[-6:]}",
        origin=RunOrigin(
            deployment=deployment.name,
            version=version.number,
            bundle=version.bundle,
            pool=spec.pool,
            priority=spec.priority,
            begins_at=begins_at,
            actor=actor,
        ),
        parameters=given,
        tags=tuple(dict.fromkeys((*spec.tags, *tags))),
        max_resumes=spec.max_resumes if spec.on_crash is OnCrash.RESUME else 0,
        key=(f"deployment:{deployment.name}", key) if key else None,
        digest=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest(),
    )


def check_parameters(schema: Mapping[str, Any], parameters: Mapping[str, Any], *, of: str) -> None:
    """Refuse parameters that a flow does not take.

    Args:
        schema: JSON Schema of the parameters.
        parameters: Those that are given, in their JSON form.
        of: Whose they are, as a sentence begins with it.

    Raises:
        ParameterError: Names all that does not fit.
    """
    validator = _validator(schema)
    known = schema.get("properties", {})
    faults = [_unknown(name, known) for name in parameters if name not in known]
    for error in sorted(validator.iter_errors(dict(parameters)), key=str):
        if error.validator == "additionalProperties" and not error.absolute_path:
            continue  # said better above
        faults.append(_fault(error))
    if faults:
        takes = f"It takes {', '.join(known)}." if known else "It takes none."
        raise errors.ParameterError(
            f"{of} does not take these parameters: {'; '.join(faults)}. {takes}"
        )


def read_parameters(schema: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Turn texts, such as those of a command line, into JSON forms of parameters.

    A text is read as JSON if that fits the parameter, and as itself otherwise.

    Args:
        schema: JSON Schema of the parameters.
        texts: By the names of the parameters.
    """
    return {name: _read(schema, name, text) for name, text in texts.items()}


def _read(schema: Mapping[str, Any], name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    mine = schema.get("properties", {}).get(name)
    if mine is None or mine.get("type") == "string":
        return text
    alone = _validator({**mine, "$defs": schema.get("$defs", {})})
    if alone.is_valid(value) or isinstance(value, list | dict):
        return value
    return text if alone.is_valid(text) else value


def _validator(schema: Mapping[str, Any]) -> jsonschema.Draft202012Validator:
    # It takes a quarter of a second to load, and few processes ever order a run.
    import jsonschema  # noqa: PLC0415
    import referencing  # noqa: PLC0415

    # Without this it would fetch whatever address a schema refers to.
    nothing_else: referencing.Registry[Any] = referencing.Registry()
    return jsonschema.Draft202012Validator(dict(schema), registry=nothing_else)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = errors.closest(name, known)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"{name!r} is none of them{hint}"


def _fault(error: jsonschema.ValidationError) -> str:
    path = "".join(_steps(error))
    if error.validator == "required" and not path:
        missing = error.message.partition(" is a required")[0]
        return f"{missing} is missing"
    shown = repr(error.instance)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"{path}={shown} does not fit ({error.message})" if path else error.message


def _steps(error: jsonschema.ValidationError) -> Iterator[str]:
    for number, step in enumerate(error.absolute_path):
        yield str(step) if number == 0 else f"[{step!r}]"
