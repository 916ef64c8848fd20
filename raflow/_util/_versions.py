"""Versions of installed packages."""

from __future__ import annotations

import functools
import re
import site
import sysconfig
from importlib import metadata


@functools.cache
def version_of(package: str) -> str:
    """Return the version of an installed package, without importing it; empty if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def installed_packages() -> dict[str, str]:
    """Return the versions of what is installed in this environment, sorted by normalised name.

    What packages carry along for themselves does not count: an import of Ray puts a folder of such
    on `sys.path`.
    """
    folders = {*map(sysconfig.get_path, ("purelib", "platlib")), *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    found = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in metadata.distributions(path=sorted(folders))
    }
    return dict(sorted(found.items()))
