"""Bundles: the code of deployments, which the server keeps and never unpacks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Final

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import Path, Request
from fastapi.responses import StreamingResponse

from raflow import errors
from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import BundleOut

routes = Routes("bundles")

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
_PIECE_SECONDS: Final = 30.0
"""Who sends nothing for so long has given up."""


@routes.get("/bundles/{digest}", Permission.READ)
def get_bundle(digest: Digest, verbs: Verbs) -> BundleOut:
    """Return what is known of a bundle; 409 `raflow.bundle_missing` if it is to be sent."""
    return BundleOut.of(verbs.deployments.bundle(digest))


@routes.put("/bundles/{digest}", Permission.AUTHOR)
async def put_bundle(digest: Digest, verbs: Verbs, request: Request) -> BundleOut:
    """Keep the archive of a bundle, a tar in zstd as the body, if it is what its name says."""
    keep = partial(verbs.deployments.put_bundle, digest, _pieces(request.stream()))
    await anyio.to_thread.run_sync(keep, limiter=request.app.state.uploading)
    return BundleOut.of(await anyio.to_thread.run_sync(verbs.deployments.bundle, digest))


@routes.get("/bundles/{digest}/archive", Permission.AUTHOR, response_class=StreamingResponse)
def get_bundle_archive(digest: Digest, verbs: Verbs) -> StreamingResponse:
    """Return the archive of a bundle as it was sent."""
    size = verbs.deployments.bundle(digest).size
    return StreamingResponse(
        verbs.deployments.archive(digest),
        media_type="application/zstd",
        headers={"Content-Length": str(size)},
    )


def _pieces(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Return what comes, to a thread that waits for it."""
    while True:
        piece = anyio.from_thread.run(_next, stream)
        if piece is None:
            return
        yield piece


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    try:
        with anyio.fail_after(_PIECE_SECONDS):
            return await anext(stream, None)
    except TimeoutError as error:
        raise errors.BundleError(
            f"Nothing of the bundle has come for {_PIECE_SECONDS:.0f} s. Send it again."
        ) from error
