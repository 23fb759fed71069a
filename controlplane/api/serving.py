"""How the API's server treats connections: what is no HTTP is answered in our form, who is slow is cut.

aiohttp answers what its parser refuses before any application sees it, as plain text and with a traceback in the
log. Here that is one line in the log and the same error body that every endpoint has.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import hdrs, http_exceptions, web
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.api import problems
from controlplane.api.edge import SECURITY, UNREADABLE, Unreadable
from controlplane.api.problems import HttpError

HEAD_S: Final = 30.0  # for a request's first line and headers, and between two requests
LINE_BYTES: Final = 8190
PATIENCE_S: Final = 30.0  # in which a client must take TAKEN_BYTES of an answer that waits for it
TAKEN_BYTES: Final = 16 << 10
RequestFactory = Callable[..., web.BaseRequest]
_log = logging.getLogger("controlplane.api")


class Connection(web.RequestHandler):
    """One client's connection. A client that does not take its answer is cut: it holds memory and a task.

    Args:
        patience_s: how often it is looked whether the client took anything.
        unreadable: counts what is no request; given an address, headers for the answer.
    """

    __slots__ = ("_left_bytes", "_patience_s", "_unreadable", "_watch")

    def __init__(
        self,
        *given: Any,
        patience_s: float,
        unreadable: Unreadable,
        **more: Any,
    ) -> None:
        super().__init__(*given, **more)
        self._unreadable = unreadable
        self._patience_s = patience_s
        self._left_bytes = 0
        self._watch: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """More waits for the client than the transport holds: watch it."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """The client took it."""
        self._look_no_more()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._look_no_more()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        assert self.transport is not None  # noqa: S101 - narrows; it was written to just now
        self._left_bytes = self.transport.get_write_buffer_size()
        self._watch = self._loop.call_later(self._patience_s, self._look)

    def _look(self) -> None:
        if self.transport is None:
            return
        if self._left_bytes - self.transport.get_write_buffer_size() >= TAKEN_BYTES:
            self._look_later()
            return
        _log.info("a client that does not take its answer is cut")
        self.transport.abort()

    def _look_no_more(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may repeat what was sent
    ) -> web.StreamResponse:
        """Answer what could not be read as a request; the connection is closed afterwards."""
        request_id = secrets.token_hex(8)
        fault = status >= 500
        _log.log(
            logging.ERROR if fault else logging.INFO,
            "unreadable request %d address=%s request=%s (%s)",
            status,
            request.remote,
            request_id,
            type(exc).__name__,
            exc_info=exc if fault else None,
        )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already; no other one can follow")
        answer = problems.answer(problems.unexpected(request_id) if fault else _refusal(exc))
        answer.headers.update(SECURITY | {"Server": "snap", "X-Request-Id": request_id})
        answer.headers.update(self._unreadable(request.remote or ""))
        answer.force_close()
        return answer


class _Server(web.Server):
    """Makes a ``Connection`` for every client."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the API's application.

    Args:
        shutdown_timeout_s: for requests that are being answered at the end.
        patience_s: in which a client must take a part of its answer.
    """

    def __init__(
        self, app: web.Application, shutdown_timeout_s: float, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout_s)
        self._patience_s = patience_s

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=_expecting_nothing_unknown(made.request_factory),
            access_log=None,
            auto_decompress=False,  # the edge refuses what is packed; aiohttp logs what it can't unpack
            patience_s=self._patience_s,
            unreadable=self.app.get(UNREADABLE, _uncounted),
            keepalive_timeout=HEAD_S,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
        )


def _expecting_nothing_unknown(make: RequestFactory) -> RequestFactory:
    """``make`` for requests without an ``Expect`` that nobody knows: aiohttp would refuse it before the edge.

    Source: RFC 9110 section 10.1.1: a server *may* refuse it.
    """

    def made(message: RawRequestMessage, *more: Any) -> web.BaseRequest:
        if message.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            headers = CIMultiDict(message.headers)
            headers.popall(hdrs.EXPECT)
            message = message._replace(headers=CIMultiDictProxy(headers))
        return make(message, *more)

    return made


def _uncounted(_address: str) -> Mapping[str, str]:
    """For applications without the edge."""
    return {}


def _refusal(error: BaseException | None) -> HttpError:
    if isinstance(error, http_exceptions.LineTooLong):
        sentence = f"The address or a header is longer than {LINE_BYTES} bytes."
    elif isinstance(error, http_exceptions.BadHttpMethod):
        sentence = "This is no HTTP request: it does not begin with a method."
    else:
        sentence = "The request is no valid HTTP/1.1; its first line or a header can't be read."
    return HttpError(sentence, "VALIDATION_ERROR")
