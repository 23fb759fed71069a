"""HTTP requests with large bodies, done by a worker thread: their bytes never pass the event loop.

So TLS, hashing, compression and the disk keep as many cores busy as there are blobs under way, and no
byte is handed from thread to thread. A connection serves one request after another: each new one would cost
both sides a handshake, and on a long line the time until it has its full speed.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Final

from yarl import URL

from agent.image import registry_errors

_CONNECT_S: Final = 10.0
_SILENCE_S: Final = (
    60.0  # it must take or give a part within this; it may have to hash a whole blob
)
_BROKEN: Final = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)


class Channel:
    """A connection for one request at a time. Blocking and for one thread at a time, but for ``abort``.

    Raises from every call: what ``registry_errors.mapped`` makes of the library's errors.
    """

    def __init__(self, host: str, origin: URL, tls: ssl.SSLContext | None) -> None:
        """Take the registry's name for messages, and where to connect to; without ``tls``, in the clear."""
        self.origin = origin
        self._host = host
        place = origin.host or "", origin.port
        self._link: http.client.HTTPConnection
        if origin.scheme == "https":
            self._link = http.client.HTTPSConnection(*place, timeout=_CONNECT_S, context=tls)
        else:
            self._link = http.client.HTTPConnection(*place, timeout=_CONNECT_S)
        self._aborted = False
        self._received: Received | None = None  # the answer to the last request

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Iterator[bytes] | None = None,
    ) -> Received:
        """Send the request, ``body`` in chunks as they come, and read the answer's head.

        What ``body`` raises of our own errors comes out as it is.

        Args:
            target: path and query.
        """
        self._received = None
        with registry_errors.mapped(self._host):
            if self._link.sock is None:
                self._link.connect()
            if self._aborted:
                raise ConnectionAbortedError("given up")
            self._link.sock.settimeout(_SILENCE_S)
            wanted = dict(headers)
            if body is not None:
                wanted["Transfer-Encoding"] = "chunked"
                body = _framed(body)
            try:
                self._link.request(method, target, body=body, headers=wanted)
            except _BROKEN as cause:  # it may have said why before it hung up
                return self._last_words(cause)
            self._received = Received(self._host, self._link.getresponse())
            return self._received

    def release(self) -> None:
        """Have it ready for another request, or closed where that can't be: its answer was not read to its end."""
        if self._aborted or self._received is None or not self._received.is_whole:
            self._link.close()

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent: after ``release``, and while the other side has not hung up."""
        link = self._link.sock
        if link is None:
            return False
        seen = select.poll()
        seen.register(link, select.POLLIN)  # nothing is owed to us: an end, or a word that is none
        return not seen.poll(0)

    def close(self) -> None:
        """Hang up."""
        self._link.close()

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

    @property
    def is_whole(self) -> bool:
        """Whether all of it was read."""
        return self._response.isclosed()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; 0 at the body's end."""
        with registry_errors.mapped(self._host):
            return self._response.readinto(buffer)

    def read(self, most: int) -> bytes:
        """At most so many bytes of the body."""
        with registry_errors.mapped(self._host):
            return self._response.read(most)
