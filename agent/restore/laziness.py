"""Whether a restored process may run before its memory is there (lazily), or not (eagerly).

A pod says how by the annotation ``snap.weaversoft.io/restore-mode``: ``eager`` (the default), ``lazy`` or ``auto``.
Where it says nothing, the checkpoint may have been asked to by whoever took it (its grant says so).
Lazily a container starts sooner; if the daemon that brings its pages dies, the container is killed, and may have read
zeros for a moment. So nobody gets it unasked; ``auto`` is lazy only for one process that is large enough to be worth
it, ``lazy`` is wherever it is possible at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.restore import hanging

# Below this an eager restore costs a tenth of a second more, and is simpler.
WORTH_BYTES: Final = 256 << 20
# Below this CRIU's own reading costs no more than the talk with it.
FILLED_BYTES: Final = 64 << 20
MOST_FILL_S: Final = 9999  # four digits are what the wrapper takes
FEATURE: Final = "uffd-noncoop"  # the kernel tells the daemon of fork, mremap, madvise


class Mode(StrEnum):
    """How memory comes."""

    EAGER = "eager"
    LAZY = "lazy"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the choice depends on.

    Attributes:
        asked: the pod's annotation, or else what the checkpoint says; "" for neither.
        by: who asked, as a sentence begins.
        lazy_bytes: private anonymous memory, the only kind that can come later.
        address_spaces: processes that have memory of their own.
    """

    asked: str
    by: str
    oci_runtime: str
    criu_features: frozenset[str]
    lazy_bytes: int
    address_spaces: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``reason`` is one sentence for people."""

    lazy: bool
    reason: str


def choose(now: Situation) -> Choice:
    """Lazy or eager, and why."""
    if now.asked in ("", Mode.EAGER):
        return Choice(False, f"{now.by} asks for it." if now.asked else "Nobody asks for another.")
    if obstacle := _obstacle(now):
        return Choice(False, obstacle)
    if now.asked == Mode.LAZY:
        return Choice(True, f"{now.by} asks for it.")
    if now.asked != Mode.AUTO:
        return Choice(False, f"{now.by} asks for a mode that is none of eager, lazy and auto.")
    if now.address_spaces > 1:
        return Choice(False, "Several processes: a lazy restore is chosen for one only.")
    if now.lazy_bytes < WORTH_BYTES:
        return Choice(False, f"Less than {WORTH_BYTES >> 20} MiB could come later.")
    return Choice(True, f"One process, {now.lazy_bytes >> 20} MiB come later.")


def fill_s(now: Situation) -> int:
    """How long this agent may take to bring the memory of an eager restore (``memory_filling``); 0: CRIU reads it.

    Never that of several processes: those that were forked share pages, which only CRIU can make them share again.
    """
    if _obstacle(now) or now.address_spaces != 1 or now.lazy_bytes < FILLED_BYTES:
        return 0
    return min(int(hanging.patience_s(now.lazy_bytes)), MOST_FILL_S)


def _obstacle(now: Situation) -> str:
    """Why it can't be lazy at all; "" if it can."""
    if now.oci_runtime != "runc":
        return f"{now.oci_runtime} does not restore lazily."
    if FEATURE not in now.criu_features:
        return f"CRIU and the kernel lack {FEATURE}."
    if not now.lazy_bytes:
        return "No memory could come later."
    return ""
