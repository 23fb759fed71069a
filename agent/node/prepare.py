"""Making the node ready for restores, and taking that back: wrapper, CRIU, the runtime's handler.

Each step looks at what is there and does what is missing, so that preparing twice changes nothing
and a preparation that was interrupted is finished by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import errors
from agent.formats.jobs import Progress, Report
from agent.node import readiness
from agent.node.changes import Change, Changes, File
from agent.node.facts import NodeFacts, Readiness
from agent.node.restarting import Restarting, Runtime
from agent.runtimes import commands, containerd, crio
from agent.runtimes.commands import Host

BIN: Final = "/opt/snap/bin"
CRIU_IN_IMAGE: Final = Path("/opt/snap/image/criu")  # a folder that runs wherever it is copied
CRIU_HERE: Final = "/opt/snap/criu"
SYSTEM_CRIU: Final = "/usr/local/sbin/criu"  # where the container runtime itself finds it
HANDLER: Final = containerd.Handler(readiness.HANDLER, readiness.WRAPPER, ("snap.weaversoft.io/*",))
RUNTIME_DRIVER: Final = "runtime"  # the restore driver that a prepared node has
_CRITICAL_S: Final = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What preparing works with.

    Attributes:
        scripts: the helpers, by the name they have in ``/opt/snap/bin``.
        restart: the command that starts the runtime anew; empty: systemd does.
        look: probes the node anew.
        owner: tells this agent from the one that is installed after it: the id of its pod.
    """

    host: Host
    data_dir: str
    runtime: Runtime
    scripts: Mapping[str, bytes]
    restart: str
    look: Callable[[], Awaitable[Readiness]]
    criu: Path = CRIU_IN_IMAGE
    owner: str = ""


class Preparer:
    """Prepares this node. One call at a time."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._changes = Changes(tools.host, f"{tools.data_dir}/prepare")
        self._undone = tools.host.path(f"{tools.data_dir}/prepare/undone")
        self._one = asyncio.Lock()
        self._restarting = Restarting(tools.host, tools.runtime, tools.restart, HANDLER.name)

    async def prepare(self, report: Report) -> None:
        """Have everything that restores need. What is there is left as it is.

        If the handler can't be had, the runtime's configuration is what it was before; wrapper and
        CRIU stay, and are taken back by ``undo``.

        Raises:
            Refused: something stands against it; the message says what to do.
            CommandFailed, Retryable, Broken: it did not work.
        """
        async with self._one:
            await asyncio.to_thread(self._undone.unlink, missing_ok=True)
            await commands.finish(self._prepare(report), _CRITICAL_S)

    async def prepare_at_start(self, report: Report) -> None:
        """As ``prepare``, but a node that this very agent was told to undo stays undone.

        Undoing comes before removing: an agent that is started anew in between must not prepare.
        """
        async with self._one:
            if await asyncio.to_thread(self._is_undone):
                report(Progress(100, "The node was put back as it was, and stays so"))
                return
            await commands.finish(self._prepare(report), _CRITICAL_S)

    async def undo(self, report: Report) -> None:
        """Take everything back that preparing changed.

        Raises:
            Refused: running pods use the handler. CommandFailed, Retryable, Broken: it did not work.
        """
        async with self._one:
            await commands.finish(self._undo(report), _CRITICAL_S)
            await asyncio.to_thread(self._remember_undone)

    def _is_undone(self) -> bool:
        try:
            return self._undone.read_text() == self._tools.owner
        except FileNotFoundError:
            return False

    def _remember_undone(self) -> None:
        self._undone.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._undone.write_text(self._tools.owner)

    async def _prepare(self, report: Report) -> None:
        facts = (await self._tools.look()).facts
        report(Progress(10, "Installing the runtime wrapper"))
        await asyncio.to_thread(self._install_scripts)
        report(Progress(30, "Looking at CRIU"))
        await self._have_criu(facts)
        report(Progress(50, "Configuring the container runtime"))
        await self._have_handler(facts, report)
        found = await self._tools.look()
        if RUNTIME_DRIVER not in found.facts.restore_drivers:
            why = "; ".join(reason.message for reason in found.reasons)
            raise errors.Refused(f"The node still can't restore: {why}", code=errors.CONFLICT)
        report(Progress(100, "The node is prepared"))

    def _install_scripts(self) -> None:
        for name, content in self._tools.scripts.items():
            self._changes.file(File(f"{BIN}/{name}", content, 0o755))

    async def _have_criu(self, facts: NodeFacts) -> None:
        """Bring CRIU from the agent's image where the node has none, or one that does not work here.

        Raises:
            Refused: there is none to bring, and the node has none.
        """
        usable = facts.criu_version and facts.engines
        old = readiness.is_too_old(facts)
        if usable and not old:
            return
        mark = await asyncio.to_thread(_version_in, self._tools.criu)
        if not mark:
            if usable:
                return  # an old one that works; the probe says so
            raise errors.Refused(
                "CRIU is not on this node (or can't work here) and this agent brings none along; "
                "install criu 4.1 or later on the node.",
                code=errors.CONFLICT,
            )
        await asyncio.to_thread(self._bring_criu, mark, system=not facts.criu_version)

    def _bring_criu(self, mark: str, *, system: bool) -> None:
        self._changes.tree(CRIU_HERE, self._tools.criu, mark)
        self._changes.link(f"{BIN}/criu", "../criu/bin/criu")
        place = self._tools.host.path(SYSTEM_CRIU)
        if system and place.parent.is_dir() and not (place.exists() or place.is_symlink()):
            try:
                self._changes.link(SYSTEM_CRIU, f"{BIN}/criu")
            except OSError as cause:  # a node whose /usr can't be written to
                _log.info("the container runtime itself finds no criu: %s", cause)

    async def _have_handler(self, facts: NodeFacts, report: Report) -> None:
        known = (await self._tools.runtime.status()).handlers
        before = self._changes.record.changes
        edits = await self._edits(facts)
        if not edits and HANDLER.name in known:
            return
        await self._restarting.check(facts.runtime)
        try:
            # whole, or a thread would still write what is being backed out
            await commands.finish(asyncio.to_thread(self._make, edits), _CRITICAL_S)
            lost = await self._restarting.restart(facts.runtime, report, want=True)
        except BaseException:
            await self._back_out(facts.runtime, before, report)
            raise
        _tell_of(lost)

    def _make(self, edits: tuple[File, ...]) -> None:
        for edit in edits:
            self._changes.file(edit)

    async def _edits(self, facts: NodeFacts) -> tuple[File, ...]:
        """The files that the runtime's configuration lacks."""
        host = self._tools.host
        if facts.runtime == "cri-o":
            wanted, real = await crio.with_handler(host, HANDLER)
            await self._stand_in_front_of(real)
            here = await asyncio.to_thread(_text, host.path(wanted.path))
            return () if here == wanted.text else (_file(host, wanted),)
        if facts.runtime != "containerd":
            raise errors.Refused(
                "The node's container runtime is neither containerd nor CRI-O; nothing was changed.",
                code=errors.CONFLICT,
            )
        config = await containerd.read(host)
        there = config.runtimes.get(HANDLER.name) or {}
        if (there.get("options") or {}).get("BinaryName") == HANDLER.binary:
            return ()
        edits = await containerd.with_handler(host, config, HANDLER)
        await self._stand_in_front_of(
            (config.default_runtime.get("options") or {}).get("BinaryName")
        )
        return tuple(_file(host, one) for one in edits)

    async def _stand_in_front_of(self, real: object) -> None:
        """Tell the wrapper which program it stands in front of, where the runtime names one."""
        if not (isinstance(real, str) and real.startswith("/")):
            return
        for name in ("snap-runc", "snap-crun"):
            if name.removeprefix("snap-") in real.rpartition("/")[2]:
                named = File(f"{BIN}/{name}.real", f"{real}\n".encode())
                await asyncio.to_thread(self._changes.file, named)

    async def _back_out(self, runtime: str, before: tuple[Change, ...], report: Report) -> None:
        """Have the runtime as it was before its configuration was touched."""
        await asyncio.to_thread(self._changes.take_back_config, before)
        if self._restarting.disturbed:
            try:
                await self._restarting.restart(runtime, report, want=False)
            except errors.SnapError as failure:  # what went wrong first is what counts
                _log.error("the container runtime could not be started anew: %s", failure.message)
                return
        await asyncio.to_thread(self._changes.restarted)

    async def _undo(self, report: Report) -> None:
        record = self._changes.record
        runtime = (await self._tools.look()).facts.runtime
        if any(one.config for one in record.changes) or record.restart:
            await self._restarting.refuse_while_used()
            report(Progress(20, "Taking the handler out of the container runtime"))
            await self._restarting.check(runtime)
            kept = list(await asyncio.to_thread(self._changes.take_back_config))
            lost = await self._restarting.restart(runtime, report, want=None if kept else False)
            await asyncio.to_thread(self._changes.restarted)
        else:
            kept, lost = [], frozenset()
        await self._restarting.refuse_while_used()
        report(Progress(80, "Removing what was installed"))
        kept += await asyncio.to_thread(self._changes.take_back, self._changes.record.changes)
        await self._tools.look()
        _tell_of(lost)
        if kept:
            raise errors.Refused(
                f"{', '.join(kept)} was changed by somebody else since and was left as it is; the "
                "rest is as it was before.",
                code=errors.CONFLICT,
            )
        report(Progress(100, "The node is as it was before"))


def _tell_of(lost: frozenset[str]) -> None:
    if lost:
        raise errors.Broken(
            f"{len(lost)} containers did not survive the restart of the container runtime: "
            f"{', '.join(sorted(one[:12] for one in lost)[:10])}; look at the node."
        )


def _file(host: Host, edit: containerd.Edit) -> File:
    place = host.path(edit.path)
    mode = place.stat().st_mode & 0o7777 if place.is_file() else 0o644
    return File(edit.path, edit.text.encode(), mode, edit.item, config=True)


def _text(place: Path) -> str:
    try:
        return place.read_text()
    except OSError:
        return ""


def _version_in(folder: Path) -> str:
    """The version of the CRIU that the agent's image brings along; empty: it brings none."""
    return _text(folder / "VERSION").strip()
