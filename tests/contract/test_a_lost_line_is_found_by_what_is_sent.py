"""A dead line to the control plane ends by what the agent sends, not by its rare pings."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import grpc.aio

from agent.link.conversation import HEARTBEAT_S
from agent.link.session import OPTIONS

NOTICED_S = 30.0  # by then the control plane has given the session up, too


async def test_the_kernel_ends_a_connection_that_is_not_acknowledged() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            await channel.channel_ready()
            [timeout_ms] = user_timeouts(port)
    finally:
        await server.stop(None)
    assert 0 < timeout_ms / 1000 + HEARTBEAT_S <= NOTICED_S


def user_timeouts(port: int) -> list[int]:
    """TCP_USER_TIMEOUT of this process's connections to ``port``, in ms."""
    found = []
    for file in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as one:
            if one.getpeername()[1:2] == (port,):
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found
