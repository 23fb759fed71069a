"""What became of each container that asked for a restore: one record each, kept over restarts of the agent."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

KEPT: Final = 500
LINE_BYTES: Final = 16 << 10
BATCH: Final = 100


class Action(StrEnum):
    """How a container that asked was started."""

    RESTORED = "restored"  # proved: its processes run
    COLD = "cold"  # refused before CRIU was asked, or nothing to restore from in time
    FAILED = "failed"  # CRIU or the runtime failed; then started cold


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One container's start.

    Attributes:
        code: a short name of the reason for COLD and FAILED ("no_grant", "criu_failed" …); of a restored one
            "hook_failed" if its hook did, else "".
        reason: one sentence for people; of a restored one without a code, a clause on what makes it slow, or "".
        details: the tool's own words.
        at: RFC 3339 UTC.
        prepare_ms: ask → answer; restore_ms: answer → restored, stopped; start_ms: ask → let go.
        criu_restore_ms, pages_restored: CRIU's statistics.
        pid: of the container's first process on the node.
        mode: "lazy" or "eager", and why; "" when it started cold.
        hook_ms: how long its hook took; 0: it has none.
        sequence: rises on this node, given by the log.
    """

    action: Action
    container_id: str
    at: str
    code: str = ""
    reason: str = ""
    details: str = ""
    namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    container_name: str = ""
    sandbox_id: str = ""
    image: str = ""
    pid: int = 0
    prepare_ms: float = 0.0
    restore_ms: float = 0.0
    start_ms: float = 0.0
    criu_restore_ms: float = 0.0
    pages_restored: int = 0
    warnings: tuple[str, ...] = ()
    mode: str = ""
    mode_reason: str = ""
    hook_ms: float = 0.0
    sequence: int = 0


OnOutcome = Callable[[Outcome], None]  # cheap, never blocks, never raises


class OutcomeLog:
    """The last outcomes, in memory and in a file (one JSON line each), and their counts since the start.

    They are news for the control plane until it has stored them; ``<file>.told`` says up to which it has. More than
    ``KEPT`` are not kept for it. Methods block for as long as a small write takes; call them from a thread.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.recent: deque[Outcome] = deque(_read(file), maxlen=KEPT)
        self.counts: Counter[tuple[Action, str]] = Counter()
        self._told_file = file.with_name(file.name + ".told")
        self._told = _number(self._told_file)
        self._last = max([self._told, *(one.sequence for one in self.recent)])
        self._writing = threading.Lock()

    def untold(self, above: int) -> tuple[Outcome, ...]:
        """The oldest that the control plane has not stored, with a sequence higher than ``above``."""
        with self._writing:
            news = [one for one in self.recent if one.sequence > max(above, self._told)]
        return tuple(news[:BATCH])

    def told(self, up_to: int) -> None:
        """The control plane has stored those up to this sequence."""
        with self._writing:
            if self._told < up_to <= self._last:
                self._told = up_to
                partial = self._told_file.with_name(self._told_file.name + ".tmp")
                partial.write_text(str(up_to))
                partial.replace(self._told_file)

    def add(self, outcome: Outcome) -> None:
        """Keep ``outcome``; the file is rewritten when it holds twice what is kept."""
        with self._writing:
            self._last = max(self._last + 1, time.time_ns())
            self._add(msgspec.structs.replace(outcome, sequence=self._last))

    def _add(self, outcome: Outcome) -> None:
        self.recent.append(outcome)
        self.counts[outcome.action, outcome.code] += 1
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = msgspec.json.encode(outcome) + b"\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
            large = stream.tell() > 2 * KEPT * 1024
        if large:
            partial = self._file.with_name(self._file.name + ".tmp")
            partial.write_bytes(b"".join(msgspec.json.encode(o) + b"\n" for o in self.recent))
            partial.chmod(0o600)
            partial.replace(self._file)


def _number(file: Path) -> int:
    """What ``file`` holds; 0: there is none, or the node lost power while it was written."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _read(file: Path) -> list[Outcome]:
    """What ``file`` holds; a damaged line (the node lost power) is left out."""
    try:
        lines = file.read_bytes().splitlines()[-KEPT:]
    except OSError:
        return []
    outcomes = []
    for line in lines:
        try:
            outcomes.append(msgspec.json.decode(line[:LINE_BYTES], type=Outcome))
        except msgspec.MsgspecError:
            continue
    return outcomes
