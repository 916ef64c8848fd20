"""Describes the values of task runs, keeps them as their policy says, and reads them back."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

from raflow import errors
from raflow.model import ResultInfo, ResultPolicy, Serializer, TaskRunKey
from raflow.results import _serialize, _storage
from raflow.results._describe import Description, describe

INLINE_LIMIT: Final = 64 * 1024

_SHRINKS_BY: Final = 16
"""A list of small numbers takes this many times its JSON in memory."""
_SLACK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Describes the value of a call, and keeps it as its policy says.

    Made by the driver, sent to worker processes; see `raflow.execute.ResultKeeper`.
    """

    flow_run_id: str
    storage: str
    """fsspec URL, or path, of values too large to be inline."""
    signing_key: bytes = field(repr=False)
    """Signs pickles; see `signing_key`."""
    inline_limit: int = INLINE_LIMIT
    """Serialized bytes that are still kept inline. Default: 64 KiB."""
    base: str = field(default_factory=os.getcwd)
    """Directory that relative paths of storage start at. Default: the driver's own."""

    def keep(
        self, value: object, policy: ResultPolicy, *, run: TaskRunKey, attempt: int
    ) -> ResultInfo:
        """Describe `value`, and keep it.

        Args:
            value: What the task returned.
            policy: `persist=None` keeps what fits inline and raises nothing for what cannot be
                serialized; True keeps everything; False nothing.
            run: The task run that made the value.
            attempt: The number of the attempt.

        Raises:
            ResultStorageError: Storage cannot be written.
            SerializationError: The policy's serializer cannot write such a value.
        """
        known = _known(value, policy)
        if known is not None:
            return known
        about = describe(value)
        kept = None if policy.persist is False else self._serialize(value, policy, about)
        if kept is None:
            return _info(about)
        serializer, data = kept
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= self.inline_limit:
            return _info(about, serializer=serializer.value, inline=data, digest=digest)
        name = f"{self.flow_run_id}/{_name(run, attempt)}.{serializer.value}"
        url = _storage.write(self._storage(policy), name, data)
        return _info(about, serializer=serializer.value, url=url, digest=digest)

    def _serialize(
        self, value: object, policy: ResultPolicy, about: Description
    ) -> tuple[Serializer, bytes] | None:
        limit = None if policy.persist else self.inline_limit
        if limit is not None and _clearly_above(limit, about):
            return None
        automatic = policy.serializer is Serializer.AUTO
        ways = _serialize.serializers_for(value) if automatic else (policy.serializer,)
        for way in ways:
            try:
                return way, _serialize.dump(value, way, key=self.signing_key, limit=limit)
            except _serialize.TooLargeError:
                return None
            except errors.SerializationError:
                if way is not ways[-1]:
                    continue
                if automatic and policy.persist is None:
                    return None
                raise
        raise AssertionError("there is always a serializer")

    def _storage(self, policy: ResultPolicy) -> str:
        return _storage.absolute(policy.storage or self.storage, self.base)


def read_result(info: ResultInfo, *, signing_key: bytes) -> object:
    """Return the value that a `Keeper` kept.

    The digest is checked before the bytes are used, and the signature of a pickle before it is
    opened.

    Args:
        info: What the keeper returned.
        signing_key: The key the keeper had.

    Raises:
        NotFoundError: The value was not kept.
        ResultStorageError: It cannot be read, or is not what was written.
        SerializationError: It cannot be turned back into a value.
    """
    what = f"The result of type {info.type!r}"
    if not info.serializer:
        raise errors.NotFoundError(
            f"{what} was not kept. Set persist_result=True on its task to keep it at any size."
        )
    data = info.inline if info.inline is not None else _storage.read(info.url)
    if hashlib.sha256(data).hexdigest() != info.digest:
        raise errors.ResultStorageError(
            f"{what} at {info.url or 'inline'!r} is not what was written: its SHA-256 differs. It "
            "was changed or damaged; run the task again.",
            url=info.url,
        )
    return _serialize.load(data, info.serializer, key=signing_key, what=what)


def _clearly_above(limit: int, about: Description) -> bool:
    factor = 1 if about.solid else _SHRINKS_BY
    return about.size > limit * factor + _SLACK


def _name(run: TaskRunKey, attempt: int) -> str:
    item = "" if run.map_index < 0 else f"-{run.map_index}"
    return f"{run.node}{item}.{attempt}"


def _info(
    about: Description,
    *,
    serializer: str = "",
    inline: bytes | None = None,
    url: str = "",
    digest: str = "",
) -> ResultInfo:
    return ResultInfo(
        type=about.type,
        size=about.size,
        preview=about.preview,
        length=about.length,
        truth=about.truth,
        serializer=serializer,
        inline=inline,
        url=url,
        digest=digest,
    )


def _known(value: object, policy: ResultPolicy) -> ResultInfo | None:
    """Return what is kept of None, a boolean or a whole number without doing the work again."""
    if policy.persist is False or policy.serializer not in _JSON_OR_AUTO:
        return None
    if value is None or type(value) is int or type(value) is bool:
        return _keep_json(value)
    return None


@functools.lru_cache(maxsize=1024, typed=True)
def _keep_json(value: int | None) -> ResultInfo | None:
    if not _serialize.is_json(value):
        return None
    data = _serialize.dump(value, Serializer.JSON, key=b"")
    return _info(
        describe(value),
        serializer=Serializer.JSON.value,
        inline=data,
        digest=hashlib.sha256(data).hexdigest(),
    )


_JSON_OR_AUTO: Final = frozenset({Serializer.AUTO, Serializer.JSON})
