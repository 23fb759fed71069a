"""A process of WebSocket readers: what they see, how long after it was sent. Told by lines on stdin, answers in JSON.

First line: a ``Reading``. Then ``begin`` (forget what was seen) and ``end STEPS_PER_S`` (tell of it). Frames are taken
apart here, many at a time, so that fifty readers cost little beside the server that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agent.link.pacing import NEWS_EVERY_S
from bench.fleet import plan
from bench.fleet.plan import Reading

_TEXT: Final = 0x81
_PING: Final = 0x89


class _News(msgspec.Struct):
    job_id: str
    message: str


@dataclass
class Seen:
    """What one reader saw.

    Attributes:
        late_s: for every update, overtaken ones too: from its sending until something as new was seen.
        overtaken: updates that a newer one of their job made superfluous before they were told.
        last: the newest step of each job.
    """

    late_s: list[float] = field(default_factory=list)
    events: int = 0
    overtaken: int = 0
    last: dict[str, int] = field(default_factory=dict)

    def take(self, job_id: str, message: str, every_s: float, now: float) -> None:
        """One event; other words than ours are states from before."""
        words = message.split()
        if len(words) != 2 or not words[1].isdigit():
            return
        sent, step = float(words[0]), int(words[1])
        before = self.last.get(job_id, 0)
        self.last[job_id] = step
        self.events += 1
        self.overtaken += max(0, step - before - 1)
        for behind in range(max(1, step - before)):
            self.late_s.append(now - sent + behind * every_s)


class Reader(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, token: str, port: int, every_s: float) -> None:
        self._token, self._port, self._every_s = token, port, every_s
        self._buffer = bytearray()
        self._decode = msgspec.json.Decoder(_News).decode
        self._transport: Any = None
        self.opened: Final = asyncio.get_running_loop().create_future()
        self.is_open = False
        self.seen = Seen()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /ws/progress HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )

    def connection_lost(self, _: Exception | None) -> None:
        """A reader that is dropped sees nothing more, which the figures show."""
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        """Take whole frames apart."""
        now = time.monotonic()
        self._buffer += data
        if not self.is_open and not self._open():
            return
        start = 0
        while (frame := self._frame(start)) is not None:
            kind, content, start = frame
            if kind == _TEXT:
                news = self._decode(content)
                self.seen.take(news.job_id, news.message, self._every_s, now)
            elif kind == _PING:
                self._transport.write(b"\x8a\x80\0\0\0\0")
        del self._buffer[:start]

    def _open(self) -> bool:
        head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self.opened.set_exception(RuntimeError(f"no WebSocket: {head[:200]!r}"))
            return False
        self._buffer = bytearray(rest)
        self.is_open = True
        self.opened.set_result(None)
        return True

    def _frame(self, start: int) -> tuple[int, bytes, int] | None:
        """(kind, content, where the next one begins) of the frame at ``start``. Source: RFC 6455, 5.2."""
        head = self._buffer[start : start + 4]
        if len(head) < 2:
            return None
        length, begin = head[1] & 127, start + 2
        if length == 126:
            if len(head) < 4:
                return None
            length, begin = int.from_bytes(head[2:4], "big"), start + 4
        if len(self._buffer) < begin + length:
            return None
        return head[0], bytes(self._buffer[begin : begin + length]), begin + length


async def _lead(every_s: float) -> None:
    loop, readers = asyncio.get_running_loop(), []
    commands = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    reading = msgspec.json.decode(await commands.readline(), type=Reading)
    for token in reading.tokens:
        reader = Reader(token, reading.port, every_s)
        await loop.create_connection(lambda made=reader: made, "127.0.0.1", reading.port)  # type: ignore[misc]
        await reader.opened
        readers.append(reader)
    _answer({"open": len(readers)})
    while word := (await commands.readline()).strip():
        if word == b"begin":
            for reader in readers:
                reader.seen = Seen()
            _answer({"open": sum(reader.is_open for reader in readers)})
        elif word == b"end":
            _answer(_told(readers))


def _told(readers: list[Reader]) -> dict[str, Any]:
    everything, own = readers[0].seen, [reader.seen for reader in readers[1:]]
    return {
        "open": sum(reader.is_open for reader in readers),
        "all": _figures([everything]),
        "own": _figures(own),
        "last": everything.last,
    }


def _figures(seen: list[Seen]) -> dict[str, float]:
    late = sorted(late_s for one in seen for late_s in one.late_s)
    if not late:
        return {"events": 0, "overtaken": 0, "updates": 0}
    return {
        "events": sum(one.events for one in seen),
        "overtaken": sum(one.overtaken for one in seen),
        "updates": len(late),
        "p50_ms": round(late[len(late) // 2] * 1000, 2),
        "p99_ms": round(late[int(len(late) * 0.99)] * 1000, 2),
        "max_ms": round(late[-1] * 1000, 2),
    }


def _answer(content: dict[str, Any]) -> None:
    print(msgspec.json.encode(content).decode(), flush=True)


if __name__ == "__main__":
    plan.keep_off_measured_core()
    asyncio.run(_lead(NEWS_EVERY_S))
