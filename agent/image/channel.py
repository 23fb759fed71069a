"""One HTTP request with a large body, done by a worker thread: its bytes never pass the event loop.

So TLS, hashing, compression and the disk keep as many cores busy as there are blobs under way, and no
byte is handed from thread to thread.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from yarl import URL

from agent.image import registry_errors

_CONNECT_S: Final = 10.0
_SILENCE_S: Final = (
    60.0  # it must take or give a part within this; it may have to hash a whole blob
)
_BROKEN: Final = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)


class Channel:
    """A connection for one request. Blocking and for one thread, but for ``abort``. Closed by ``with``.

    Raises from every call: what ``registry_errors.mapped`` makes of the library's errors.
    """

    def __init__(self, host: str, url: URL, tls: ssl.SSLContext | None) -> None:
        """Take the registry's name for messages, and where to connect to; without ``tls``, in the clear."""
        self._host, self._url = host, url
        self._link: http.client.HTTPConnection
        if url.scheme == "https":
            self._link = http.client.HTTPSConnection(
                url.host or "", url.port, timeout=_CONNECT_S, context=tls
            )
        else:
            self._link = http.client.HTTPConnection(url.host or "", url.port, timeout=_CONNECT_S)
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._link.close()

    def ask(
        self, method: str, headers: Mapping[str, str], body: Iterator[bytes] | None = None
    ) -> Received:
        """Send the request, ``body`` in chunks as they come, and read the answer's head.

        What ``body`` raises of our own errors comes out as it is.
        """
        with registry_errors.mapped(self._host):
            self._link.connect()
            if self._aborted:
                raise ConnectionAbortedError("given up")
            self._link.sock.settimeout(_SILENCE_S)
            wanted = dict(headers)
            if body is not None:
                wanted["Transfer-Encoding"] = "chunked"
                body = _framed(body)
            try:
                self._link.request(method, self._url.raw_path_qs, body=body, headers=wanted)
            except _BROKEN as cause:  # it may have said why before it hung up
                return self._last_words(cause)
            return Received(self._host, self._link.getresponse())

    def _last_words(self, cause: OSError) -> Received:
        try:
            return Received(self._host, self._link.getresponse())
        except (OSError, http.client.HTTPException):
            raise cause from None

    def abort(self) -> None:
        """Have the thread that uses it fail soon. For any thread, at any time."""
        self._aborted = True
        link = self._link.sock
        if isinstance(link, socket.socket):
            with contextlib.suppress(OSError):  # not connected, or closed by now
                # not SSLSocket's own, which takes the TLS state away under the other thread's feet
                socket.socket.shutdown(link, socket.SHUT_RDWR)


def _framed(body: Iterator[bytes]) -> Iterator[bytes]:
    """``body`` in HTTP's chunks, each part as it came: the library would copy it twice to frame it.

    Source: RFC 9112, section 7.1.
    """
    end = b""
    for part in filter(None, body):  # an empty chunk would be the last one
        yield b"%s%X\r\n" % (end, len(part))
        yield part
        end = b"\r\n"
    yield end + b"0\r\n\r\n"


class Received:
    """An answer whose body is still to be read."""

    def __init__(self, host: str, response: http.client.HTTPResponse) -> None:
        self._host, self._response = host, response
        self.status = response.status
        self.headers = response.getheaders()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; 0 at the body's end."""
        with registry_errors.mapped(self._host):
            return self._response.readinto(buffer)

    def read(self, most: int) -> bytes:
        """At most so many bytes of the body."""
        with registry_errors.mapped(self._host):
            return self._response.read(most)
