"""The key that signs pickled results, so that nobody else's pickle is ever opened."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from raflow import errors

_BYTES: Final = 32


def signing_key(home: Path) -> bytes:
    """Return the key of this installation; the first call makes it.

    Args:
        home: The raflow home; the key is `keys/results.key` in it, readable by its owner only.

    Raises:
        ConfigError: The file can be read by others, or holds no key.
        ResultStorageError: It cannot be made or read.
    """
    path = home / "keys" / "results.key"
    try:
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except OSError as error:
        raise errors.ResultStorageError(
            f"The key that signs results, {str(path)!r}, cannot be made or read: {error.strerror}. "
            "Set RAFLOW_HOME to a directory that you can write."
        ) from error
    if mode & 0o077:
        raise errors.ConfigError(
            f"The key that signs results, {str(path)!r}, can be used by other users of this "
            f"machine (mode {mode:04o}). Run `chmod 600 {path}`, or delete it if somebody may "
            "have changed it: a new one is made, and pickled results signed by the old one can no "
            "longer be read."
        )
    if len(key) != _BYTES:
        raise errors.ConfigError(
            f"{str(path)!r} holds {len(key)} bytes instead of a key of {_BYTES}. Restore it from a "
            "backup, or delete it: a new one is made, and pickled results signed by the old one "
            "can no longer be read."
        )
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        # A link fails where a rename would replace: of two processes that start at once, the
        # second takes the first one's key.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
