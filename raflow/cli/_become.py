"""Going on as another program: it loads what this command line does not, or the other way round."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def become(module: str, *arguments: str, **options: object) -> NoReturn:
    """Go on as `python -m MODULE`, with its options; those that are None are left out."""
    given = [
        text
        for name, value in options.items()
        if value is not None
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    sys.stdout.flush()
    command = [sys.executable, "-m", module, *arguments, *given]
    os.execv(sys.executable, command)  # noqa: S606  # no shell
