"""Routes: none is declared without saying who may use it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, params
from fastapi.exceptions import RequestValidationError

from raflow import errors
from raflow.model import Permission
from raflow.server._auth import Principal
from raflow.service import Service

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Routes:
    """Routes of one tag, to be included in the application."""

    def __init__(self, tag: str) -> None:
        """Take the name under which they are documented together."""
        self.router = APIRouter(tags=[tag])

    def get(
        self, path: str, permission: Permission, **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route that reads."""
        return self._add("GET", path, permission, options)

    def post(
        self, path: str, permission: Permission, **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route that does something."""
        return self._add("POST", path, permission, options)

    def put(
        self, path: str, permission: Permission, **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route that makes or replaces something."""
        return self._add("PUT", path, permission, options)

    def delete(
        self, path: str, permission: Permission, **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route that removes something."""
        return self._add("DELETE", path, permission, options)

    def _add(
        self, method: str, path: str, permission: Permission, options: dict[str, Any]
    ) -> Callable[[Endpoint], Endpoint]:
        def add(endpoint: Endpoint) -> Endpoint:
            checks = [] if permission is Permission.OPEN else [Depends(_allows(permission))]
            if not _has_query(endpoint):
                checks.append(Depends(_no_query))
            self.router.add_api_route(
                path,
                endpoint,
                methods=[method],
                dependencies=checks,
                operation_id=endpoint.__name__,
                openapi_extra={"x-permission": permission.value},
                **options,
            )
            return endpoint

        return add


def _allows(permission: Permission) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        principal = request.scope.get("raflow.principal")
        if not isinstance(principal, Principal):
            raise errors.UnauthenticatedError
        if permission not in principal.permissions:
            raise errors.AccessError(
                f"This needs the permission {permission.value!r}, which {principal.actor!r} does "
                "not have."
            )

    return check


def _has_query(endpoint: Callable[..., Any]) -> bool:
    parameters = inspect.signature(endpoint, eval_str=True).parameters.values()
    marks = [getattr(parameter.annotation, "__metadata__", ()) for parameter in parameters]
    return any(isinstance(mark, params.Query) for found in marks for mark in found)


async def _no_query(request: Request) -> None:
    """Refuse a parameter that would have no effect: it may be one that was written wrongly."""
    unknown = [
        {"type": "extra_forbidden", "loc": ("query", name), "msg": "This route takes no parameters"}
        for name in request.query_params
    ]
    if unknown:
        raise RequestValidationError(unknown)


async def _principal(request: Request) -> Principal:
    principal = request.scope["raflow.principal"]
    assert isinstance(principal, Principal)
    return principal


async def _service(request: Request) -> Service:
    principal = request.scope["raflow.principal"]
    state = request.app.state
    return Service(state.store, actor=principal.actor, signals=state.signals, storage=state.storage)


Caller = Annotated[Principal, Depends(_principal)]
"""Who asks."""
Verbs = Annotated[Service, Depends(_service)]
"""What can be asked of the store, on behalf of who asks."""
