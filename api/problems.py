"""Errors of the API as problem details (RFC 9457): a status, a sentence, and each field that is wrong with its mend.

Handlers for what operations raise, and a middleware for what is refused before any operation is found. Never the text
of an exception that is not ours.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import RequestDataTooBig
from django.db import DataError
from django.db import Error as DatabaseFault
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from dashboard.refused import Refused

logger = logging.getLogger("api")

ROOT = "/api/"
CONTENT_TYPE = "application/problem+json"
MAX_BODY_BYTES = 64 * 1024
MOST_ERRORS = 20  # in one answer

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2


class Problem(Exception):
    """`errors`: what is wrong with which field, see `wrong`."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers


def wrong(field: str, value: object, fix: str) -> dict[str, str]:
    return {"field": field, "value": _short.repr(value), "fix": fix}


def answer(problem: Problem) -> HttpResponse:
    told: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        told["errors"] = list(problem.errors)
    return JsonResponse(told, status=problem.status, content_type=CONTENT_TYPE, headers=problem.headers)


def install(api: NinjaAPI) -> None:
    def handle(kind: type[Exception], translate: Callable[[Any], Problem]) -> None:
        api.add_exception_handler(kind, lambda request, error: answer(translate(error)))

    handle(Problem, lambda problem: problem)
    handle(Refused, lambda refused: Problem(refused.status, refused.said))
    handle(DatabaseFault, lambda fault: Problem(503, "The database does not answer; try again.", headers=RETRY))
    handle(DataError, _untakable)
    handle(ValidationError, _invalid)
    handle(HttpError, lambda error: Problem(error.status_code, "The body is not JSON, or not a JSON object."))
    handle(Http404, lambda error: Problem(404, "There is nothing here."))
    handle(Exception, _fault)


RETRY = {"Retry-After": "3"}


def _invalid(error: ValidationError) -> Problem:
    errors = []
    for each in error.errors[:MOST_ERRORS]:
        place = [str(part) for part in each["loc"] if part not in ("body", "query", "path", "data", "filters", "page")]
        errors.append(wrong(".".join(place) or "body", each.get("input"), each["msg"]))
    return Problem(422, "Some of what was sent cannot be used.", errors)


def _untakable(error: DataError) -> Problem:
    """A rule of ours has let through what a column cannot hold: to try again is no use."""
    logger.error("a value that the database cannot take", exc_info=error)
    return Problem(422, "Some of what was sent cannot be stored.")


def _fault(error: Exception) -> Problem:
    logger.error("a fault of the API", exc_info=error)
    return Problem(500, "A fault of the router; its log says more.")


def not_found(request: HttpRequest, **_: Any) -> HttpResponse:
    return answer(Problem(404, "There is nothing here; /api/v1/openapi.json says what there is."))


Answer = HttpResponseBase | Awaitable[HttpResponseBase]


@sync_and_async_middleware
def ProblemDetails(get_response: Callable[[HttpRequest], Answer]) -> Callable[[HttpRequest], Answer]:
    """Of the API's addresses every error is a problem, whoever has found it."""
    if iscoroutinefunction(get_response):

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            if not request.path_info.startswith(ROOT):
                return await get_response(request)  # type: ignore[no-any-return]
            return _unusable(request) or _told(await get_response(request))

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(ROOT):
            return get_response(request)  # type: ignore[return-value]
        return _unusable(request) or _told(get_response(request))  # type: ignore[arg-type]

    return guard


def _unusable(request: HttpRequest) -> HttpResponse | None:
    try:
        size = len(request.body)
    except (RequestDataTooBig, RawPostDataException):
        size = MAX_BODY_BYTES + 1
    if size > MAX_BODY_BYTES:
        return answer(Problem(413, f"The body is longer than {MAX_BODY_BYTES} bytes."))
    if size and request.content_type != "application/json":
        return answer(Problem(415, "The body must be application/json."))
    return None


def _told(response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code < 400 or response.headers.get("Content-Type") == CONTENT_TYPE:
        return response
    kept = {name: response.headers[name] for name in ("Allow", "WWW-Authenticate") if name in response.headers}
    details = {
        400: "The request cannot be used: its Host, or what it is, is not one for here.",
        405: f"Not with this method; with {kept.get('Allow', 'another')}.",
    }
    return answer(Problem(response.status_code, details.get(response.status_code, "This was refused."), headers=kept))
