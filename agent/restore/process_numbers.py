"""Numbers of processes in a PID namespace that a pod's containers share (``shareProcessNamespace``).

A restored process has the number that it had. In a namespace of its own that is always free; in a shared one the
containers that came first, their probes and CRIU's own processes may have taken it.

Source: pid_namespaces(7); proc(5), /proc/sys/kernel/ns_last_pid.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

from agent import errors
from agent.formats import core_images
from agent.restore import rootfs
from agent.runtimes import commands
from agent.runtimes.commands import Host

APART: Final = (
    1000  # from the highest number of the checkpoint: other containers' stand close to it
)
_SET_S: Final = 3.0
_SET: Final = 'echo "$1" >/proc/sys/kernel/ns_last_pid'
_log = logging.getLogger(__name__)


async def keep_apart(host: Host, spec: dict[str, Any], images: Path) -> None:
    """Have the kernel give out numbers well above those of ``images`` from now on, where the pod shares a namespace.

    Nothing where the container has a namespace of its own, or the node's. That it can't be done is no reason
    not to restore: the numbers are free as a rule.
    """
    shared = rootfs.namespace(spec, "pid")
    if not shared:
        return
    highest = await asyncio.to_thread(core_images.highest_number, images)
    argv = ["nsenter", f"--pid={shared}", "sh", "-c", _SET, "sh", str(highest + APART)]
    try:
        done = await commands.run(host, argv, timeout_s=_SET_S)
        done.check("The PID namespace of the pod can't be told which numbers to leave free.")
    except errors.SnapError as cause:
        _log.warning("%s %s", cause.message, cause.details)
