"""Describes the values of task runs, keeps them as their policy says, and reads them back."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, cast

import orjson

from raflow import errors
from raflow.model import (
    ResultInfo,
    ResultPolicy,
    Serializer,
    TaskRunKey,
    describe_plain,
)
from raflow.results import _serialize, _storage
from raflow.results._describe import Description, describe

INLINE_LIMIT: Final = 64 * 1024

_READERS: Final = 16
"""How many stored values are read at a time: object stores answer slowly, but many at once."""
_SHRINKS_BY: Final = 16
"""A list of small numbers takes this many times its JSON in memory."""
_SLACK: Final = 4096
_JSON_OF_NUMBER: Final = 32
"""No number of 64 bits takes so many bytes."""
_JSON_OF_CHARACTER: Final = 6
"""A character takes at most so many, as `\\u001b` does."""


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
    incarnation: int = 1
    """Which process drives the run; so no two of them store under the same name. Default: 1."""

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
        again = f".i{self.incarnation}" if self.incarnation > 1 else ""
        name = f"{self.flow_run_id}/{_name(run, attempt)}{again}.{serializer.value}"
        # The record may say that the value is kept as soon as this returns.
        url = _storage.write(self.storage_of(policy), name, data, durable=True)
        return _info(about, serializer=serializer.value, url=url, digest=digest)

    def keep_plain(self, values: Sequence[object], policy: ResultPolicy) -> bytes | None:
        """Keep values of `model.PLAIN_TYPES` together: what `keep` says of each can be derived.

        Args:
            values: Values of these types only; None where another call has no such value.
            policy: As for `keep`.

        Returns:
            A JSON array; None if they must be kept one by one: the policy says so, or JSON would
            change one of them, or one is too large to be kept inline.
        """
        if policy.persist is False or policy.serializer not in _JSON_OR_AUTO:
            return None
        kinds = set(map(type, values))
        if float in kinds:
            floats = values if len(kinds) == 1 else [v for v in values if type(v) is float]
            if not all(map(math.isfinite, cast("Sequence[float]", floats))):
                return None
        try:
            data = orjson.dumps(values if type(values) is list else list(values))
        except TypeError:  # whole numbers of more than 64 bits, halves of surrogate pairs
            return None
        fits = len(data) <= self.inline_limit or self._fit_inline(values)
        return data if fits else None

    def read(self, info: ResultInfo) -> object:
        """Return a value that a keeper with the same signing key kept; see `read_result`.

        Raises:
            NotFoundError: The value was not kept.
            ResultStorageError: It cannot be read, or is not what was written.
            SerializationError: It cannot be turned back into a value.
        """
        return read_result(info, signing_key=self.signing_key)

    def _fit_inline(self, values: Sequence[object]) -> bool:
        """Whether the JSON of each of these plain values is small enough."""
        if self.inline_limit < _JSON_OF_NUMBER:
            return False
        surely = self.inline_limit // _JSON_OF_CHARACTER - 1
        long = [v for v in values if type(v) is str and len(v) > surely]
        return all(len(orjson.dumps(value)) <= self.inline_limit for value in long)

    def _serialize(
        self, value: object, policy: ResultPolicy, about: Description
    ) -> tuple[Serializer, bytes] | None:
        limit = None if policy.persist else self.inline_limit
        if limit is not None and _clearly_above(limit, value, about):
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

    def storage_of(self, policy: ResultPolicy) -> str:
        """Return the fsspec URL, or path from the root, where such values are stored."""
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


def result_exists(info: ResultInfo) -> bool:
    """Tell whether a value that a `Keeper` kept is still there; reads nothing of it."""
    return info.inline is not None or (bool(info.url) and _storage.exists(info.url))


def read_results(infos: Sequence[ResultInfo], *, signing_key: bytes) -> list[object]:
    """Return several values that a `Keeper` kept, in order; see `read_result`.

    What is in storage is read side by side.

    Args:
        infos: What the keeper returned.
        signing_key: The key the keeper had.

    Raises:
        NotFoundError: A value was not kept.
        ResultStorageError: One cannot be read, or is not what was written.
        SerializationError: One cannot be turned back into a value.
    """
    read = functools.partial(read_result, signing_key=signing_key)
    stored = sum(1 for info in infos if info.url)
    if stored < 2:
        return list(map(read, infos))
    with ThreadPoolExecutor(min(stored, _READERS), "raflow-results") as pool:
        return list(pool.map(read, infos))


def _clearly_above(limit: int, value: object, about: Description) -> bool:
    if type(value) is str:
        return len(value) > limit
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
    return describe_plain(value)


_JSON_OR_AUTO: Final = frozenset({Serializer.AUTO, Serializer.JSON})
