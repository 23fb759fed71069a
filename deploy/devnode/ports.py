"""Ports for programs that are started a moment later, or again and again at the same one."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

# below where a kernel takes the ports of outgoing connections from, unless it is told otherwise:
# none of those gets one between our look and the program's own bind
LOW: Final = 15_000
HIGH: Final = 32_000
TRIES: Final = 100


def free_port(host: str = "127.0.0.1", wanted: int = 0) -> int:
    """``wanted`` if nobody listens there, else any free port.

    Raises:
        OSError: none was found.
    """
    found = random.SystemRandom().sample(range(LOW, HIGH), TRIES)  # others may look just now
    for port in (wanted, *found) if wanted else found:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise OSError(f"no free port on {host}")
