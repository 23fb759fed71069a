"""What CRI-O says of its own configuration.

Source: CRI-O, crio.conf(5): ``[crio.checkpoint_restore] container_level_enabled`` (none,
checkpoint_only, checkpoint_restore), in older ones ``[crio.runtime] enable_criu_support``;
crio-status(8), whose ``config`` prints what the running one works with.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from agent import errors
from agent.formats import toml_text
from agent.runtimes import commands
from agent.runtimes.commands import Host
from agent.runtimes.containerd import Edit, Handler

DROP_IN: Final = "/etc/crio/crio.conf.d/90-snap.conf"
_ROOTS: Final = {"runc": "/run/runc", "crun": "/run/crun"}
_CALL_S: Final = 10.0


async def checkpoints(host: Host) -> bool | None:
    """Whether the CRI-O that runs on ``host`` is set to take checkpoints; None: it does not say."""
    try:
        done = await commands.run(host, ["crio", "status", "config"], timeout_s=_CALL_S)
    except errors.SnapError:
        return None
    return checkpoints_by(done.stdout.decode(errors="replace")) if done.status == 0 else None


def checkpoints_by(text: str) -> bool | None:
    """The same of a configuration.

    That it may also be set to restore does not count: it takes none of our images (``node.readiness``).
    """
    try:
        crio: Any = tomllib.loads(text).get("crio", {})
        level = crio.get("checkpoint_restore", {}).get("container_level_enabled")
        supported: bool | None = crio.get("runtime", {}).get("enable_criu_support")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return supported if level is None else level != "none"


async def with_handler(host: Host, wanted: Handler) -> tuple[Edit, str]:
    """The file that gives CRI-O the handler, as its default one but for the program; and that program.

    Raises:
        Refused: its default runtime is none that the wrapper knows, or it does not say.
    """
    try:
        done = await commands.run(host, ["crio", "status", "config"], timeout_s=_CALL_S)
        runtime: Any = tomllib.loads(done.check("CRI-O does not say its configuration.").text)
        runtime = runtime["crio"]["runtime"]
    except (tomllib.TOMLDecodeError, KeyError) as cause:
        raise errors.Refused(
            "CRI-O does not say its configuration; add the handler by hand (docs/operations.md).",
            code=errors.CONFLICT,
        ) from cause
    name = runtime.get("default_runtime") or "runc"
    like = (runtime.get("runtimes") or {}).get(name) or {}
    if name not in _ROOTS:
        raise errors.Refused(
            f"CRI-O's default runtime is {name}; the handler stands in front of runc or crun only.",
            code=errors.CONFLICT,
        )
    content = {
        key: like[key]
        for key in ("monitor_path", "monitor_cgroup", "monitor_exec_cgroup", "monitor_env")
        if like.get(key)
    }
    content |= {
        "runtime_path": wanted.binary.replace("snap-runc", f"snap-{name}"),
        "runtime_type": "oci",
        "runtime_root": like.get("runtime_root") or _ROOTS[name],
    }
    path = ("crio", "runtime", "runtimes", wanted.name)
    note = "# Written by the SNAP agent (prepare); its undo removes it.\n"
    return Edit(DROP_IN, note + toml_text.table(path, content)), str(like.get("runtime_path") or "")
