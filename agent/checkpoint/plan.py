"""What a dump is to do, written down on the node before it starts, and what came of it.

The folder ``<data folder>/dumps/<job id>/`` is all that a new agent needs to take over: the plan for
the script (``plan``, ``<n>/plan``), the same for the agent (``plan.json``), then ``pid`` and ``result``.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent import errors
from agent.checkpoint import watched
from agent.checkpoint.shelf import check_id, is_id
from agent.formats import layout
from agent.runtimes import detached
from agent.runtimes.commands import Host

CRIU_OPTIONS: Final = (
    "tcp-close",  # connections end; without it an open one fails the dump
    "skip-in-flight",  # the same for connections that wait to be accepted
    "file-locks",
    "network-lock skip",  # no packet is held back; a lock left by a killed CRIU cuts the pod off
    "ghost-limit 64M",  # deleted files that are still open
)
_TIMEOUT: Final = "timeout 3"  # seconds to stop all processes; CRIU's 10 are 10 s of standstill
# what runc sets itself overrides the configuration file, so these two must be flags as well
_FLAGS: Final = {"runc": ("--file-locks", "--tcp-skip-in-flight"), "crun": ("--file-locks",)}
HARD_AFTER_S: Final = 60  # a CRIU that was asked to stop has that long to put everything back
# CRIU else mounts every hierarchy and reads all files of the container's cgroups within the freeze
_NO_CGROUPS: Final = {"runc": ("--manage-cgroups-mode", "ignore")}
_KNOWS_IGNORE: Final = (1, 2)  # runc from here on; some before it refuse the word, some do nothing
SCRIPT: Final = "/opt/snap/bin/snap-dump"


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """Files to copy while everything stands still; ``source`` is the node's path.

    Attributes:
        target: the tar, relative to the parts.
        only_used: leave it out when the source is empty.
    """

    source: str
    target: str
    only_used: bool = True


class DumpTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One container of a dump.

    Attributes:
        criu_options: lines for it alone, beside the usual ones.
        leave_cgroups: CRIU need not look at its cgroups, unless it made some itself.
    """

    checkpoint_id: str
    container_id: str
    container_name: str
    binary: str
    root: str
    pid: int
    memory_bytes: int = 0
    was_paused: bool = False
    copies: tuple[Copy, ...] = ()
    watched: tuple[str, ...] = ()  # by inotify, as the container sees it
    criu_options: tuple[str, ...] = ()
    leave_cgroups: bool = False


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """One dump: all its containers stand still together."""

    job_id: str
    engine: str
    timeout_s: float
    leave_running: bool
    targets: tuple[DumpTarget, ...]
    namespace: str = ""
    pod_name: str = ""

    @property
    def hard_s(self) -> int:
        """After so many seconds CRIU is killed, whatever that does to the process that it is in."""
        return math.ceil(self.timeout_s) + HARD_AFTER_S

    @property
    def pauses(self) -> bool:
        """Whether the script freezes the containers itself; for a single one CRIU does it."""
        return len(self.targets) > 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How the script ended: ``ok``, ``failed``, ``cancelled`` or ``timeout``; pause by its clock."""

    outcome: str
    failed: int | None
    status: int
    pause_ms: float


class Folder:
    """One dump's folder. Paths given out are the node's; files are read and written through ``host``."""

    def __init__(self, host: Host, data_dir: str, job_id: str) -> None:
        self.host = host
        self.path = f"{data_dir}/dumps/{check_id(job_id)}"
        self.here = host.path(self.path)
        self.checkpoints = f"{data_dir}/checkpoints"

    def parts(self, target: DumpTarget) -> str:
        """The parts of ``target``, as the node sees them."""
        return f"{self.checkpoints}/{target.checkpoint_id}"

    def write(self, dump: Dump) -> None:
        """Write the plan; ``plan.json`` last, so that with it all is there.

        Raises:
            Refused: a path can't be written into a plan.
        """
        self.here.mkdir(parents=True, mode=0o700)
        _write(self.here / "plan", _script_plan(dump))
        for number, target in enumerate(dump.targets):
            self._write_target(number, target, dump)
        _write(self.here / "plan.json", msgspec.json.encode(dump).decode())

    def _write_target(self, number: int, target: DumpTarget, dump: Dump) -> None:
        folder, here = f"{self.path}/{number}", self.here / str(number)
        (here / "home/.criu").mkdir(parents=True)
        found = watched.options(target.watched)
        own = (*target.criu_options, f"action-script {folder}/cut")
        options = (*CRIU_OPTIONS, *found, _TIMEOUT, *own)
        _write(here / "home/.criu/default.conf", "\n".join(options) + "\n")
        _write(here / "cut", _action_script(folder))
        (here / "cut").chmod(0o700)
        _write(here / "plan", _target_plan(target, dump, self.parts(target)))

    def read(self) -> Dump | None:
        """The plan; None: there is none, or it was not finished, so that nothing was started."""
        try:
            return msgspec.json.decode((self.here / "plan.json").read_bytes(), type=Dump)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def process(self) -> detached.Process | None:
        """The script's process; None: it has not begun."""
        return detached.read_pid(self.host, f"{self.path}/pid")

    def result(self) -> Result | None:
        """How the script ended; None: it has not."""
        try:
            lines = (self.here / "result").read_text().splitlines()
        except FileNotFoundError:
            return None
        found = dict(line.partition("=")[::2] for line in lines)
        pause_ns = int(found["thawed_ns"]) - int(found["frozen_ns"])
        return Result(
            outcome=found["outcome"],
            failed=int(found["failed"]) if found["failed"] else None,
            status=int(found["status"]),
            pause_ms=pause_ns / 1e6,
        )


def folders(host: Host, data_dir: str) -> Iterator[Folder]:
    """Every dump's folder on this node."""
    dumps: Path = host.path(f"{data_dir}/dumps")
    if dumps.is_dir():
        for entry in sorted(dumps.iterdir()):
            if is_id(entry.name):
                yield Folder(host, data_dir, entry.name)


def may_leave_cgroups(cgroup_version: str, runtime_version: str) -> bool:
    """Whether a runc of that version can dump without cgroups, on a node where its restores can do without them."""
    found = re.match(r"(\d+)\.(\d+)", runtime_version)
    known = found is not None and tuple(map(int, found.groups())) >= _KNOWS_IGNORE
    return known and cgroup_version == "v1"  # on v2 runc tells CRIU of no new path


def options_text() -> str:
    """The CRIU options of a dump, one per line, as they are recorded and used again at its restore."""
    return "\n".join(CRIU_OPTIONS) + "\n"


def _script_plan(dump: Dump) -> str:
    return (
        f"job={dump.job_id}\ncount={len(dump.targets)}\npause={int(dump.pauses)}\n"
        f"timeout_ms={round(dump.timeout_s * 1000)}\nhard_s={dump.hard_s}\n"
    )


def _target_plan(target: DumpTarget, dump: Dump, parts: str) -> str:
    flags = [*(["--leave-running"] if dump.leave_running else []), *_FLAGS.get(target.binary, ())]
    unread = _NO_CGROUPS.get(target.binary, ()) if target.leave_cgroups else ()
    lines = [
        f"container={target.container_id}",
        f"binary={target.binary}",
        f"root={target.root}",
        f"was_paused={int(target.was_paused)}",
        f"images={parts}/{layout.CHECKPOINT_DIR}",
        f"work={parts}/work",
        f"flags={' '.join(flags)}",
        f"flags_without_cgroups={' '.join(unread)}",
        f"pid={target.pid}",
    ]
    for copy in target.copies:
        if "|" in copy.source + copy.target:
            raise errors.Refused(f"{copy.source} has a | in its path and can't be copied.")
        key = "copy_used" if copy.only_used else "copy"
        lines.append(f"{key}={copy.source}|{parts}/{copy.target}")
    if any("\n" in line for line in lines):
        raise errors.Refused("A path of the container has a line break and can't be copied.")
    return "\n".join(lines) + "\n"


def _action_script(folder: str) -> str:
    # CRIU calls it at every stage of a dump; a shell that ends at once costs a millisecond
    return (
        "#!/bin/sh\n"
        f"case $CRTOOLS_SCRIPT_ACTION in pre-dump | network-lock | post-dump)\n"
        f"  [ ! -e {shlex.quote(folder)}/../stop ] || exit 1 ;;\nesac\n"
        '[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0\n'
        f"exec {SCRIPT} cut {shlex.quote(folder)}\n"
    )


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text)
    partial.replace(path)
