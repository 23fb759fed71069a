"""One push by the agent's pusher, timed from the call to its end: stdin is the order, stdout the figures (JSON)."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from agent.formats.jobs import CheckpointId, Progress, PushResult, PushSpec, RegistryAccess
from agent.image.push import Pusher


def _ignore(_: Progress) -> None:
    """Progress has no reader here."""


async def _push(order: dict[str, str]) -> PushResult:
    access = RegistryAccess(
        order["host"], order["username"], order["password"], ca_pem=order["ca_pem"]
    )
    checkpoint_id = CheckpointId(order["checkpoint_id"])
    spec = PushSpec(checkpoint_id, access, order["repository"], order["tag"])
    return await Pusher().push(Path(order["parts"]), spec, _ignore)


def main() -> None:
    """Push, and tell how it went."""
    order = json.load(sys.stdin)
    began = time.monotonic()
    made = asyncio.run(_push(order))
    seconds = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": seconds,
        "pushed_bytes": made.pushed_bytes,
        "size_bytes": made.size_bytes,
        "peak_mib": usage.ru_maxrss / 1024,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
