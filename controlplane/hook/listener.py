"""The port that answers admission reviews: TLS, one path for each hook, nothing for anybody else."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from controlplane.errors import Broken
from controlplane.hook.admission import Answer, NotAReview
from controlplane.settings import Address

BODY_BYTES: Final = 4 << 20  # a pod is at most 1.5 MiB in etcd; the review repeats parts of it
ANSWER_S: Final = 1.0  # the API server waits no longer
IDLE_S: Final = 90.0
_NOBODY: Final = {"Server": ""}  # who answers is nobody's business
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_log = logging.getLogger(__name__)

Answering = Callable[[object], Answer]  # from a decoded review; never waits


class Listener:
    """Answers reviews at the paths that were opened. Listens from ``start`` until ``stop``."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._paths: dict[str, Answering] = {}
        self._runner: web.AppRunner | None = None
        self._port = address.port

    @property
    def is_listening(self) -> bool:
        """Whether the port is open."""
        return self._runner is not None

    @property
    def port(self) -> int:
        """The port; of an address with port 0, the one that was given when it began."""
        return self._port

    def open(self, path: str, answering: Answering) -> None:
        """Answer reviews that come to ``path``."""
        self._paths[path] = answering

    def close(self, path: str) -> None:
        """Answer there no longer."""
        self._paths.pop(path, None)

    async def start(self, context: ssl.SSLContext) -> None:
        """Open the port; fine if it is open.

        Raises:
            Broken: it can't be listened on.
        """
        if self._runner is not None:
            return
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = _Runner(
            app,
            access_log=None,
            shutdown_timeout=ANSWER_S,
            keepalive_timeout=IDLE_S,
            lingering_time=0.0,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address.host, self._address.port, ssl_context=context)
            await site.start()
        except OSError as cause:
            await runner.cleanup()
            raise Broken(
                f"SNAP_HOOK_ADDR: {self._address} can't be listened on ({cause.strerror}).",
                details=str(cause),
            ) from cause
        self._runner = runner
        self._port = runner.addresses[0][1]
        _log.info("admission reviews on https://%s", self._address)

    async def stop(self) -> None:
        """Close the port."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        answering = self._paths.get(request.rel_url.raw_path)
        if answering is None or request.method != "POST":
            return _short(404)
        if (request.content_length or 0) > BODY_BYTES:
            return _last(413)
        try:
            async with asyncio.timeout(ANSWER_S):
                body = await request.read()
        except TimeoutError:
            return _last(408)
        except web.HTTPRequestEntityTooLarge:
            return _last(413)
        try:
            given = answering(_decode(body))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, NotAReview):
            return _short(400)
        return web.Response(
            body=_encode(given.response), content_type="application/json", headers=_NOBODY
        )


class _Connection(web.RequestHandler):
    """One client's connection: what is no HTTP gets no word in answer."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may repeat what was sent
    ) -> web.StreamResponse:
        if status >= 500:
            _log.error("a review from %s was not answered", request.remote, exc_info=exc)
        else:
            _log.info("unreadable request from %s (%s)", request.remote, type(exc).__name__)
        return _last(status)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)


def _short(status: int) -> web.Response:
    return web.Response(status=status, headers=_NOBODY)


def _last(status: int) -> web.Response:
    answer = _short(status)
    answer.force_close()
    return answer
