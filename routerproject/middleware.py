"""What happens to a request before Django's own middleware sees it, and the policy that every page leaves with.

Named in settings.MIDDLEWARE. Must stay cheap: every request of a load balancer and every static file passes here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotFound
from django.http.response import HttpResponseBase
from django.urls import resolve
from django.utils.decorators import sync_and_async_middleware

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class MachinePaths:
    """Answers the paths that machines ask for, whatever Host they name, and without a redirect to https.

    A load balancer probes by address and follows no redirect; behind the Host check it would get a 400.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        if request.path_info not in (*settings.MACHINE_PATHS, *settings.ROUTER_STREAM_PATHS):
            return self.get_response(request)
        return self._answer(request) if self.is_async else async_to_sync(self._answer)(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        try:
            view, args, kwargs = resolve(request.path_info)
        except Http404:
            return HttpResponseNotFound("Not found\n", content_type="text/plain")
        if not iscoroutinefunction(view):
            view = sync_to_async(view)
        response: HttpResponse = await view(request, *args, **kwargs)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return _protected(response)


@sync_and_async_middleware
def ContentSecurityPolicy(get_response: Callable[[HttpRequest], Answer]) -> Callable[[HttpRequest], Answer]:
    """Gives every response the policy above, unless its view has set one of its own."""
    if iscoroutinefunction(get_response):

        async def protect_async(request: HttpRequest) -> HttpResponseBase:
            return _protected(await get_response(request))

        return protect_async

    def protect(request: HttpRequest) -> HttpResponseBase:
        return _protected(get_response(request))  # type: ignore[arg-type]

    return protect


def _protected(response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("Permissions-Policy", PERMISSIONS)
    return response
