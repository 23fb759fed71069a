"""Errors as HTTP answers: the one place that knows statuses.

Every error body is ``{"success": false, "error", "details", "code"}`` with the aliases ``message`` and
``detail``, which clients of the older server read.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from aiohttp import web

from controlplane import errors

STATUSES: Final[dict[str, int]] = {
    "VALIDATION_ERROR": 400,
    "AUTHENTICATION_FAILED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "CHECKPOINT_NOT_FOUND": 404,
    "CLUSTER_NOT_FOUND": 404,
    "CONTAINER_NOT_FOUND": 404,
    "HOOK_NOT_FOUND": 404,
    "JOB_NOT_FOUND": 404,
    "NODE_NOT_FOUND": 404,
    "POD_NOT_FOUND": 404,
    "REGISTRY_NOT_FOUND": 404,
    "SECRET_NOT_FOUND": 404,
    "USER_NOT_FOUND": 404,
    "WATCHER_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "CONFLICT": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RANGE_NOT_SATISFIABLE": 416,
    "CHECKPOINT_REFUSED": 422,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "CHECKPOINT_FAILED": 502,
    "CLUSTER_CONNECTION_FAILED": 502,
    "REGISTRY_CONNECTION_FAILED": 502,
    "RESTORE_FAILED": 502,
    "AGENT_UNAVAILABLE": 503,
    "TIMEOUT": 504,
    "INSUFFICIENT_STORAGE": 507,
}
_ENCODER: Final = msgspec.json.Encoder()


class Problem(msgspec.Struct, frozen=True):
    """The body of every answer that is an error.

    Attributes:
        error: one sentence: what happened, to what, what to do.
        details: the cause in the tool's own words, or the sentence again.
        code: what a program goes by.
        message: the same as ``error``.
        detail: the same as ``error``.
    """

    error: str
    details: str
    code: str
    message: str
    detail: str
    success: bool = False


class HttpError(errors.Refused):
    """A request that can't be served as it was sent; carries headers that the answer needs."""

    def __init__(self, message: str, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, code=code, details=message)
        self.headers = headers or {}


def status_of(code: str) -> int:
    """The status for ``code``; 500 for one that is not in the table."""
    return STATUSES.get(code, 500)


def answer(error: errors.SnapError) -> web.Response:
    """``error`` as a response."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    code = error.code if error.code in STATUSES else "INTERNAL_ERROR"
    if isinstance(error, errors.Retryable) and "Retry-After" not in headers:
        headers["Retry-After"] = str(max(1, math.ceil(error.after_s)))
    if code == "AUTHENTICATION_FAILED":
        headers["WWW-Authenticate"] = "Bearer"
    problem = Problem(
        error=error.message,
        details=error.details or error.message,
        code=code,
        message=error.message,
        detail=error.message,
    )
    return web.Response(
        body=_ENCODER.encode(problem),
        status=STATUSES[code],
        content_type="application/json",
        headers=headers,
    )


def unexpected(request_id: str) -> errors.SnapError:
    """A fault of ours, as the client hears of it; the log has the rest under ``request_id``."""
    return errors.Broken(
        f"The control plane failed to answer; its log has the reason under request {request_id}.",
        code="INTERNAL_ERROR",
    )


def from_framework(error: web.HTTPException) -> errors.SnapError:
    """aiohttp's own refusals in our form."""
    if error.status == 404:
        return HttpError("There is no such endpoint; /docs lists them all.", "NOT_FOUND")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        sentence = f"This endpoint does not know {error.method}; it knows {allowed}."
        return HttpError(sentence, "METHOD_NOT_ALLOWED", {"Allow": allowed})
    if error.status == 413:
        return HttpError("The body is larger than this endpoint accepts.", "PAYLOAD_TOO_LARGE")
    if error.status == 415:
        return HttpError("The body's content type is not accepted.", "UNSUPPORTED_MEDIA_TYPE")
    if error.status == 416:
        return HttpError("The range is outside of the archive.", "RANGE_NOT_SATISFIABLE")
    if error.status < 500:
        return HttpError("The request could not be read.", "VALIDATION_ERROR")
    return errors.Broken("The control plane failed to answer.", code="INTERNAL_ERROR")
