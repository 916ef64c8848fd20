"""Whether this environment is one that the code of a deployment was made for."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from raflow import errors
from raflow._util import installed_packages
from raflow.model import DeploymentVersion

_SHOWN: Final = 5


def check_fit(version: DeploymentVersion) -> None:
    """Refuse code that was deployed with another Python, or other packages, than are here.

    Raises:
        ConfigError: Names what is different.
    """
    if version.spec.packages == "ignore":
        return
    found = differences(version, platform.python_version(), installed_packages())
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise errors.ConfigError(
            f"Version {version.number} of the deployment wants {', '.join(found[:_SHOWN])}{more}. "
            "Start a worker in an environment like that, or deploy from one like this."
        )


def differences(version: DeploymentVersion, python: str, packages: Mapping[str, str]) -> list[str]:
    """Return what is different here from where a version was deployed, for people.

    Args:
        version: The version.
        python: The version of Python that is here; the last part of it does not matter.
        packages: What is installed here, by name.
    """
    found = []
    if version.python and _minor(version.python) != _minor(python):
        found.append(f"Python {_minor(version.python)} (here {_minor(python)})")
    for name, wanted in version.packages.items():
        here = packages.get(name)
        if here != wanted:
            found.append(f"{name} {wanted} ({f'here {here}' if here else 'not here'})")
    return found


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
