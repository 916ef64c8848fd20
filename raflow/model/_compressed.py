"""Compressed bytes, read with a bound on what they become."""

from __future__ import annotations

from typing import Final

import zstandard

from raflow import errors

MOST: Final = 1 << 30
"""Bytes: nothing that a run records together is larger."""


def decompress(data: bytes, what: str, *, most: int = MOST) -> bytes:
    """Return what was compressed.

    Args:
        data: One frame that tells how large its content is, as all that raflow writes do.
        what: What it is, for people: `a block of task runs`.
        most: How many bytes the content may have. Default: 1 GiB.

    Raises:
        BatchError: It is no such frame, damaged, or larger.
    """
    size = content_size(data, what)
    if size > most:
        raise errors.BatchError(
            f"The bytes of {what} cannot be read: their content has {size} bytes, and may have no "
            f"more than {most}."
        )
    try:
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _damaged(what, error) from error


def content_size(data: bytes, what: str) -> int:
    """Return how many bytes were compressed, as the frame itself says: reading it checks that.

    Raises:
        BatchError: It is no frame, or one that does not tell.
    """
    try:
        size = zstandard.frame_content_size(data)
    except zstandard.ZstdError as error:
        raise _damaged(what, error) from error
    if size < 0:
        raise errors.BatchError(
            f"The bytes of {what} cannot be read: they do not tell how large their content is."
        )
    return size


def _damaged(what: str, error: zstandard.ZstdError) -> errors.BatchError:
    return errors.BatchError(f"The bytes of {what} cannot be read: {error}.")
