"""Restores that were answered and have not been heard of again, one small file each (``state/<id>.json``).

In files, because the agent that answers need not be the one that hears how it went.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.restore import hanging
from agent.restore.hook_running import Hooked
from agent.restore.inbox import Answer, Request
from agent.restore.outcome import Outcome

FORGOTTEN_S: Final = 86400.0


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """One such restore.

    Attributes:
        outcome: as it will be if all goes well, the figures still missing.
        patience_s: how long the restore may take, from the question on.
        asides: folders with what had to make room, on the node.
        hooked: what is to be done in the container once it is let go.
    """

    outcome: Outcome
    asked_at_ns: int
    bundle: str
    work: str
    patience_s: float = hanging.PATIENCE_S
    asides: tuple[str, ...] = ()
    hooked: Hooked | None = None

    @property
    def age_s(self) -> float:
        """Since the wrapper asked."""
        return (time.time_ns() - self.asked_at_ns) / 1e9


def remember(folder: Path, request: Request, answer: Answer, outcome: Outcome) -> None:
    """Keep that ``request`` was answered with a restore."""
    pending = Pending(
        outcome=outcome,
        asked_at_ns=request.asked_at_ns,
        bundle=request.bundle,
        work=answer.work,
        patience_s=hanging.patience_s(answer.memory_bytes),
        asides=answer.asides,
        hooked=answer.hooked,
    )
    _file(folder, request.container_id).write_bytes(msgspec.json.encode(pending))


def recall(folder: Path, container_id: str) -> Pending | None:
    """What was kept for the container, which is forgotten by this; None: nothing was."""
    found = _read(_file(folder, container_id))
    _file(folder, container_id).unlink(missing_ok=True)
    return found


def is_there(folder: Path, container_id: str) -> bool:
    """Whether the container was answered with a restore and will yet be heard of."""
    found = _read(_file(folder, container_id))
    return found is not None and found.age_s <= found.patience_s


def every(folder: Path) -> Iterator[tuple[str, Pending]]:
    """Container id and restore of all."""
    for file in sorted(folder.glob("*.json")):
        if found := _read(file):
            yield file.name.removesuffix(".json"), found


def overdue(folder: Path) -> Iterator[tuple[str, Pending]]:
    """Container id and restore of all that should have ended; those of yesterday are forgotten.

    The wrapper of such a one may have been killed: then nobody will ever tell.
    """
    for file in sorted(folder.glob("*.json")):
        found = _read(file)
        if found and found.age_s > found.patience_s:
            yield file.name.removesuffix(".json"), found
            if found.age_s > FORGOTTEN_S:
                file.unlink(missing_ok=True)


def _file(folder: Path, container_id: str) -> Path:
    return folder / f"{container_id}.json"


def _read(file: Path) -> Pending | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Pending)
    except (OSError, msgspec.MsgspecError):
        return None
