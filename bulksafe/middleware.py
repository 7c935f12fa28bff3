"""Middleware that puts the user and the ids of a request into the context."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from bulksafe.contexts import context

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.http import HttpRequest


class ContextMiddleware:
    """Puts every request into a ``bulksafe.context``.

    ``request_id`` is the header ``X-Request-ID``, or a new one; ``traceparent`` the header of W3C
    Trace Context, if there is one; ``user`` the primary key of the authenticated user. Place it
    after ``AuthenticationMiddleware``.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self.get_response):
            return self._acall(request)
        with context(**_values(request), **_user(getattr(request, "user", None))):
            return self.get_response(request)

    async def _acall(self, request: HttpRequest) -> Any:
        user = await request.auser() if hasattr(request, "auser") else None
        with context(**_values(request), **_user(user)):
            return await self.get_response(request)


def _values(request: HttpRequest) -> dict[str, Any]:
    values = {"request_id": request.headers.get("X-Request-ID") or str(uuid.uuid4())}
    traceparent = request.headers.get("traceparent")
    return values | ({"traceparent": traceparent} if traceparent else {})


def _user(user: AbstractBaseUser | AnonymousUser | None) -> dict[str, Any]:
    if user is None or not getattr(user, "is_authenticated", False):
        return {}
    return {"user": user.pk}
