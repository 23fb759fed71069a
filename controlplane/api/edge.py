"""What happens to every request, once: id, caller, limits, role, decoding, errors, headers, log.

One aiohttp middleware. A handler sees only requests that are allowed and well formed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from controlplane.api import problems
from controlplane.api.callers import COOKIE, Callers
from controlplane.api.calls import Call, Reply
from controlplane.api.decoding import Decoder, invalid
from controlplane.api.metrics import Metrics
from controlplane.api.problems import HttpError
from controlplane.api.ratelimit import RateLimiter
from controlplane.api.routing import Route
from controlplane.api.services import Services
from controlplane.api.tickets import Tickets
from controlplane.errors import (
    PAYLOAD_TOO_LARGE,
    RATE_LIMITED,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    Broken,
    Denied,
    Retryable,
    SnapError,
    Unauthenticated,
)
from controlplane.identity import Actor

_log = logging.getLogger("controlplane.api")
CALL: Final = web.RequestKey("call", Call)
_BODY_DEADLINE_S: Final = 60.0
_REQUEST_ID: Final = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_ENCODER: Final = msgspec.json.Encoder()
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_CORS: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = "X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
AiohttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Unreadable = Callable[[str], Mapping[str, str]]
UNREADABLE: Final[web.AppKey[Unreadable]] = web.AppKey("unreadable")


class Edge:
    """Serves the routes.

    Args:
        endpoints: aiohttp's handlers, as they were mounted, to the routes they stand for.
    """

    def __init__(self, services: Services, endpoints: Mapping[AiohttpHandler, Route]) -> None:
        settings = services.settings
        self._services = services
        self._routes = endpoints
        self._decoders = {r: Decoder(r) for r in endpoints.values() if r.takes is not None}
        self.tickets = Tickets(services.rising)
        self.callers = Callers(
            services.users, self.tickets, settings.cors_origins, settings.trusted_proxies
        )
        self.limiter = RateLimiter(services.wall)
        self._metrics: Metrics = services.metrics
        self._literal: dict[str, set[str]] = {}
        for route in endpoints.values():
            if not route.path_fields:
                self._literal.setdefault(route.path, set()).update(route.methods)

    async def handle(self, request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        """Answer ``request``; errors become answers too."""
        started = time.perf_counter()
        route = self._routes.get(handler)
        call = self._begin(request)
        try:
            response = await self._serve(call, route, handler)
        except SnapError as error:
            response = self._failed(call, error)
        except web.HTTPException as error:
            response = self._failed(call, problems.from_framework(error))
        except (
            web.RequestPayloadError,
            aiohttp.http_exceptions.HttpProcessingError,
            ConnectionError,
        ):
            response = self._failed(call, invalid("The body could not be read as it was sent."))
        except TimeoutError:
            response = self._failed(call, Retryable("The answer did not come in time.", after_s=5))
        except Exception:  # noqa: BLE001 - a fault of ours is logged, and answered in our form too
            _log.exception("request %s failed", call.request_id)
            response = self._failed(call, problems.unexpected(call.request_id))
        await self._finish(call, route, response.status, time.perf_counter() - started)
        return response

    def _begin(self, request: web.Request) -> Call:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
        address = self.callers.address(request)
        call = Call(request, self._services, self.tickets, address, request_id)
        call.headers.update(SECURITY)
        call.headers["X-Request-Id"] = request_id
        if self._services.settings.http_tls_cert_file is not None:
            call.headers["Strict-Transport-Security"] = "max-age=31536000"
        origin = request.headers.get("Origin", "").rstrip("/")
        if origin and origin in self.callers.origins:
            call.headers["Access-Control-Allow-Origin"] = origin
            call.headers["Access-Control-Allow-Credentials"] = "true"
            call.headers["Access-Control-Expose-Headers"] = _EXPOSED
            call.headers["Vary"] = "Origin"
        request[CALL] = call
        return call

    async def _serve(
        self, call: Call, route: Route | None, handler: AiohttpHandler
    ) -> web.StreamResponse:
        if route is None:  # no such route or method: aiohttp's handler raises what is wrong
            if _is_preflight(call):
                call.headers.update(_CORS)
                return web.Response(status=204)
            self._admit(call, None)
            self._check_literal(call.request)
            return await handler(call.request)
        self._admit(call, route)
        if route.by_agents:
            call.agent_of = await self._join_token(call)
        if route.path_fields:
            self._check_literal(call.request)
        call.body = await _read_body(call.request, route)
        decoder = self._decoders.get(route)
        if decoder is None:
            answer = await route.handler(call)
        else:
            request = call.request
            wanted = decoder(request.match_info, request.query.items(), call.body)
            answer = await route.handler(call, wanted)
        return _encoded(answer)

    async def _join_token(self, call: Call) -> str:
        """The cluster of the join token that came with the call.

        Raises:
            Unauthenticated: there is none, or it is worth nothing (any more).
        """
        kind, _, token = call.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Unauthenticated("This needs a token of the cluster's agents.")
        claims = await self._services.join_tokens.check(token.strip())
        if claims.is_expired:
            raise Unauthenticated("The join token has expired; make a new one.")
        return claims.cluster

    def _check_literal(self, request: web.Request) -> None:
        """A path of literal segments is never another one's parameter, whatever the method.

        Raises:
            HTTPMethodNotAllowed: the path is a literal one that does not know this method.
        """
        methods = self._literal.get(request.path)
        if methods is not None and request.method not in methods:
            raise web.HTTPMethodNotAllowed(request.method, methods)

    def _admit(self, call: Call, route: Route | None) -> None:
        """Let the call in, or raise: who it is, how many there were, what is allowed.

        Raises:
            Unauthenticated: no valid token where one is needed.
            HttpError: too many requests.
            Denied: the role does not reach.
        """
        refused: Unauthenticated | None = None
        is_open = route is not None and route.needs is None
        try:
            call.session = self.callers.session(call.request)
        except Unauthenticated as error:
            refused = error
        self._count(call, counted=route is None or route.counted)
        if is_open or route is None:
            return  # a stale token does not hinder what needs none
        if refused is not None:
            raise refused
        if call.session is None:
            raise Unauthenticated(_no_token(call.request))
        if route.needs is not None and not call.actor.has(route.needs):
            raise Denied(f"This needs the role {route.needs}; you have the role {call.actor.role}.")

    def _count(self, call: Call, *, counted: bool) -> None:
        settings = self._services.settings
        if call.session is not None:
            key, limit = f"user {call.session.actor.username}", settings.rate_limit_user
        else:
            key, limit = f"address {call.address}", settings.rate_limit_anonymous
        left = self.limiter.take(key, limit, 1 if counted else 0)
        call.headers.update(left.headers())
        if not left.allowed:
            wait = {"Retry-After": str(left.retry_after_s)}
            sentence = f"Too many requests: {left.limit} per hour are allowed; wait and try again."
            raise HttpError(sentence, RATE_LIMITED, wait)

    def unreadable(self, address: str) -> dict[str, str]:
        """Count something from ``address`` that was no request; headers for its answer."""
        limit = self._services.settings.rate_limit_anonymous
        return self.limiter.take(f"address {address}", limit).headers()

    def _failed(self, call: Call, error: SnapError) -> web.StreamResponse:
        call.outcome = error.code
        self._metrics.failed(error.code)
        if isinstance(error, Broken):
            _log.error("request %s: %s (%s)", call.request_id, error.message, error.details)
        return problems.answer(error)

    async def _finish(
        self, call: Call, route: Route | None, status: int, duration_s: float
    ) -> None:
        request = call.request
        path = route.path if route else "unknown"
        self._metrics.answered(request.method if route else "*", path, status, duration_s)
        changes = request.method not in _READING or (route is not None and route.audited)
        level = logging.INFO if changes or status >= 400 else logging.DEBUG
        user = call.session.actor.username if call.session else "-"
        _log.log(
            level,
            "%s %s %d %.1f ms user=%s address=%s request=%s%s",
            request.method,
            request.path.encode("unicode_escape").decode()[:300],
            status,
            duration_s * 1000,
            user,
            call.address,
            call.request_id,
            "" if call.outcome == "ok" else f" code={call.outcome}",
        )
        is_login = call.session is None and call.subject and call.outcome != RATE_LIMITED
        if route is not None and route.audited and (call.session is not None or is_login):
            await self._audit(call, route)

    async def _audit(self, call: Call, route: Route) -> None:
        """Put the call on record; where the store can't take it, the log has it and the answer goes out."""
        try:
            await self._services.audit(
                call.actor if call.session else Actor(call.subject),
                route.name,
                call.subject,
                outcome=call.outcome,
                address=call.address,
                request_id=call.request_id,
            )
        except Broken as error:
            _log.error("request %s is not in the audit log: %s", call.request_id, error.message)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers of every answer on ``response``, just before they are sent."""
    call = request.get(CALL)
    if call is None:
        return
    headers = response.headers
    headers["Server"] = "snap"
    for name, value in call.headers.items():
        if name not in headers:  # an endpoint's own word wins
            headers[name] = value


async def _read_body(request: web.Request, route: Route) -> bytes:
    if not route.body_fields or route.streams or not request.body_exists:
        return b""
    if (request.content_length or 0) > route.body_limit_bytes:
        raise _too_large(route)
    try:
        async with asyncio.timeout(_BODY_DEADLINE_S):
            body = await request.read()
    except TimeoutError:
        sentence = f"The body did not come within {_BODY_DEADLINE_S:.0f} seconds."
        raise HttpError(sentence, REQUEST_TIMEOUT, {"Connection": "close"}) from None
    if len(body) > route.body_limit_bytes:
        raise _too_large(route)
    packing = request.headers.get("Content-Encoding", "identity").lower()
    if body and packing != "identity" and not route.lenient:
        sentence = "The body must be sent as it is, without Content-Encoding."
        raise HttpError(sentence, UNSUPPORTED_MEDIA_TYPE)
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_json = not given or given == "application/json" or given.endswith("+json")
    if body and not is_json and not route.lenient:
        sentence = "The body must be JSON, with Content-Type: application/json."
        raise HttpError(sentence, UNSUPPORTED_MEDIA_TYPE)
    return body


def _too_large(route: Route) -> HttpError:
    sentence = f"The body is larger than {route.body_limit_bytes} bytes."
    return HttpError(sentence, PAYLOAD_TOO_LARGE)


def _encoded(answer: object) -> web.StreamResponse:
    if isinstance(answer, web.StreamResponse):
        return answer
    status, headers = 200, None
    if isinstance(answer, Reply):
        status, headers, answer = answer.status, answer.headers, answer.content
    return web.Response(
        body=_ENCODER.encode(answer),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def _is_preflight(call: Call) -> bool:
    """Whether a browser asks, for a page that was allowed, if it may call."""
    asks = "Access-Control-Request-Method" in call.request.headers
    return (
        call.request.method == "OPTIONS" and asks and "Access-Control-Allow-Origin" in call.headers
    )


def _no_token(request: web.Request) -> str:
    if COOKIE in request.cookies and request.method not in _READING:
        return "The cookie is accepted for reading only; send Authorization: Bearer <token>."
    return "This needs a token: log in at POST /config/user/login."
