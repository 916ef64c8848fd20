"""Bodies and answers of the routes for programs of raflow: those of `raflow.model.wire`."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from raflow.model import wire


def sent(kind: Any) -> Any:
    """Return what reads the body of a request."""

    async def read(request: Request) -> Any:
        try:
            return wire.load_json(kind, await request.body(), strict=True)
        except ValueError as error:
            found = {"type": "value_error", "loc": ("body",), "msg": str(error)}
            raise RequestValidationError([found]) from error

    return Depends(read)


def answered(value: object) -> Response:
    """Return the answer that says this."""
    return Response(wire.dump_json(value), media_type="application/json")
