"""The engine ``kubelet``: the node's own kubelet has its runtime write an archive, which we take over.

The kubelet never deletes its archives, so whoever asked for one does: afterwards, after a failure
or a cancel, and for an agent that died.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from agent import errors
from agent.checkpoint.plan import Dump, DumpTarget, Folder
from agent.runtimes import commands, kubelet
from agent.runtimes.kubelet import ArchiveNames

_SENT: Final = "sent"  # when the kubelet was asked, seconds since the epoch
_NAMED_WITHIN_S: Final = 10.0  # the kubelet names the archive before it asks its runtime


class Kubelet(Protocol):
    """The kubelet, as far as this engine asks it (``runtimes.kubelet.Kubelet``)."""

    async def checkpoint(self, namespace: str, pod: str, container: str, timeout_s: float) -> str:
        """Have a container checkpointed; returns the archive's path on the node."""


@asynccontextmanager
async def archived(asked: Kubelet, folder: Folder, dump: Dump, number: int) -> AsyncIterator[Path]:
    """The kubelet's archive of container ``number`` of ``dump`` for the block; gone afterwards.

    The kubelet can't be asked to stop: cancelled, its answer is waited for, so that the container
    is known to run and the archive to be gone.

    Raises:
        SnapError: there is none (see ``runtimes.kubelet.Kubelet.checkpoint``).
    """
    target = dump.targets[number]
    paths: list[str] = []

    async def ask() -> None:
        name = target.container_name
        paths.append(await asked.checkpoint(dump.namespace, dump.pod_name, name, dump.timeout_s))

    note = folder.here / str(number) / _SENT
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"{time.time():f}\n")
    try:
        await commands.finish(ask(), dump.timeout_s + 2 * kubelet.SLACK_S)
        if not paths or not paths[0].startswith("/"):
            raise errors.Broken("The kubelet does not say where its archive is.")
        yield folder.host.path(paths[0])
    finally:
        if paths:
            folder.host.path(paths[0]).unlink(missing_ok=True)
            note.unlink(missing_ok=True)
        else:
            clear(folder, dump)


def clear(folder: Folder, dump: Dump) -> None:
    """Remove the archives that the kubelet was asked for and that nobody took over. Blocks, shortly."""
    for number, target in enumerate(dump.targets):
        note = folder.here / str(number) / _SENT
        try:
            sent_s = float(note.read_text())
        except (OSError, ValueError):
            continue
        for path in _begun_then(folder, dump, target, sent_s):
            with suppress(OSError):
                path.unlink()


def _begun_then(folder: Folder, dump: Dump, target: DumpTarget, sent_s: float) -> tuple[Path, ...]:
    names = ArchiveNames(dump.namespace, dump.pod_name, target.container_name)
    there = folder.host.path(kubelet.FOLDER)
    return names.begun_between(there, sent_s, sent_s + _NAMED_WITHIN_S)
