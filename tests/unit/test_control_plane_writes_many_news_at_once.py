"""News go to a WebSocket many in one write, as frames that any client reads; a slow one is waited for."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.api import framing


class Client(asyncio.WriteTransport):
    """What a client was sent; it takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.waiting_bytes = 0
        self.is_gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        self.waiting_bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def is_closing(self) -> bool:
        return self.is_gone


@pytest.mark.parametrize(
    ("size", "head"),
    [
        pytest.param(0, "8100", id="empty"),
        pytest.param(125, "817d", id="longest-short"),
        pytest.param(126, "817e007e", id="shortest-medium"),
        pytest.param(65535, "817effff", id="longest-medium"),
        pytest.param(65536, "817f0000000000010000", id="shortest-long"),
    ],
)
def test_a_frame_is_as_the_standard_has_it(size: int, head: str) -> None:
    message = b"x" * size
    assert framing.text_frames([message]) == bytes.fromhex(head) + message


def test_each_message_has_a_frame_of_its_own() -> None:
    assert framing.text_frames([b"one", b"", b"three"]) == b"\x81\x03one\x81\x00\x81\x05three"


async def test_they_are_one_write() -> None:
    client = Client()
    frames = framing.text_frames([b"{}"] * 500)
    await framing.write(client, frames, 5)
    assert client.writes == [frames]


async def test_a_client_that_takes_nothing_is_waited_for() -> None:
    client = Client()
    frames = b"x" * (framing.WAITING_BYTES + 1)
    writing = asyncio.create_task(framing.write(client, frames, 60))
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    client.waiting_bytes = framing.WAITING_BYTES
    async with asyncio.timeout(5):
        await writing


async def test_a_client_that_takes_nothing_is_not_waited_for_longer_than_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        await framing.write(Client(), b"x" * (framing.WAITING_BYTES + 1), 0.05)


async def test_a_client_that_is_gone_is_no_wait() -> None:
    client = Client()
    client.is_gone = True
    with pytest.raises(ConnectionResetError):
        await framing.write(client, b"x", 5)
    assert client.writes == []
