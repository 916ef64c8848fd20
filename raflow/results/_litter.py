"""Removes what attempts have stored of which nothing is on record: nobody will ever read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Final

from raflow.results import _storage

_NAME: Final = re.compile(
    r"\.?-?\d+(?:-\d+)?\.\d+(?:\.i(?P<incarnation>\d+))?\.[a-z]+(?:\.\d+\.[0-9a-f]{8})?"
)
"""What a `Keeper` calls the values of a run; with a dot before it and more behind, a draft."""


def remove_unrecorded(
    flow_run_id: str,
    incarnation: int,
    storages: Iterable[str],
    recorded: Callable[[], Collection[str]],
    *,
    look_further: bool = False,
) -> int:
    """Remove the stored values of a flow run that are not on record.

    Only for whoever has the run, once no call of it is under way whose end would still be recorded.
    What later incarnations store is left alone: so it does no harm to be late.

    Args:
        flow_run_id: The flow run.
        incarnation: The one that has the run.
        storages: fsspec URLs or paths where values of it may be.
        recorded: Returns the URLs that are on record; not asked if nothing is stored.
        look_further: Whether to look also where recorded values are: to read the record in any
            case. Default: only in `storages`.

    Returns:
        How many files were removed.

    Raises:
        ResultStorageError: A storage cannot be listed, or something in it cannot be removed.
    """
    known = frozenset(recorded()) if look_further else frozenset[str]()
    folders = {_storage.below(storage, flow_run_id) for storage in storages}
    ends = f"/{flow_run_id}"
    folders |= {url.rpartition("/")[0] for url in known if url.rpartition("/")[0].endswith(ends)}
    found = [file for folder in sorted(folders) for file in _storage.files(folder)]
    found = [url for url in found if _is_of(url, incarnation)]
    if found and not look_further:
        known = frozenset(recorded())
    left = [url for url in found if url not in known]
    for url in left:
        _storage.remove(url)
    return len(left)


def _is_of(url: str, incarnation: int) -> bool:
    named = _NAME.fullmatch(url.rpartition("/")[2])
    return named is not None and int(named["incarnation"] or 1) <= incarnation
