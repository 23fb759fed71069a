"""What the agent has promised, on disk: one file per job, written whole or not at all.

A file is written beside its place, synced, renamed, and its folder synced, so a crash at any
instant leaves either the old entry or the new one. Push passwords are part of a job that has not
ended (a push must survive a crash); they are dropped from the file when it ends. Everything here
blocks: call it from a thread.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from agent import durable
from agent.formats import jobs

log = logging.getLogger(__name__)

FORMAT: Final = 1
SEQUENCES_AT_ONCE: Final = 1024  # so that progress, which is frequent, costs no sync
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SUFFIX: Final = ".json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one job.

    Attributes:
        job: None when a cancel came for a job that was never given; it must not start later.
        step: the step that was about to be taken, "" before the first; ``done`` counts those that
            are over.
        checkpoints, pushes, report_json: what finished steps gave; a report may show memory, and is
            dropped as soon as the control plane has it.
        cancel: a cancel was acknowledged; nothing new is begun.
        ended_s: unix time of the end, 0 while it lives.
        delivered_s: unix time at which the control plane had the result, 0 before.
    """

    job_id: str
    epoch: int
    job: jobs.Job | None
    state: jobs.JobState = jobs.JobState.QUEUED
    step: str = ""
    done: int = 0
    checkpoints: tuple[jobs.CheckpointResult, ...] = ()
    pushes: tuple[jobs.PushResult, ...] = ()
    report_json: str = ""
    error: jobs.JobFailure | None = None
    cancel: bool = False
    accepted_s: float = 0.0
    ended_s: float = 0.0
    delivered_s: float = 0.0
    format: int = FORMAT

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in jobs.ENDED

    def moved(self, state: jobs.JobState) -> Entry:
        """The entry in ``state``; an ended one has its time and no secrets.

        Raises:
            ValueError: the table of transitions has no such way.
        """
        if state not in jobs.TRANSITIONS[self.state]:
            raise ValueError(f"a job that is {self.state} can't become {state}")
        if state not in jobs.ENDED:
            return msgspec.structs.replace(self, state=state)
        return msgspec.structs.replace(self._without_secrets(), state=state, ended_s=time.time())

    def _without_secrets(self) -> Entry:
        """The entry as it may stay on disk after the end."""
        if self.job is None:
            return self
        pushes = tuple(
            replace(p, registry=replace(p.registry, password="")) for p in self.job.pushes
        )
        fetches = tuple(
            replace(f, registry=f.registry and replace(f.registry, password=""))
            for f in self.job.fetches
        )
        return msgspec.structs.replace(self, job=replace(self.job, pushes=pushes, fetches=fetches))


def is_job_id(text: str) -> bool:
    """Whether ``text`` may be a job's id: it becomes a file name."""
    return _JOB_ID.fullmatch(text) is not None


class Journal:
    """The journal in ``folder``; one process at a time (the agent's lock sees to it)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sequence_file = folder / "sequence"
        self._lock = threading.Lock()
        self._given = 0
        self._reserved = 0

    def open(self) -> tuple[Entry, ...]:
        """Make the folder if it is not there, and read every entry, oldest first.

        A damaged file is set aside under ``.damaged`` and logged: one bad file must not stop the
        others.

        Raises:
            OSError: the folder can't be used.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._reserved = self._given = self._read_sequence()
        entries = []
        for file in sorted(self._folder.iterdir()):
            if file.name.endswith(".tmp"):
                file.unlink()
            elif file.suffix == _SUFFIX and (entry := self._read(file)):
                entries.append(entry)
        return tuple(sorted(entries, key=lambda entry: entry.accepted_s))

    def write(self, entry: Entry) -> None:
        """Have ``entry`` on disk, synced, when this returns.

        Raises:
            OSError: it is not there; the old one is.
        """
        if not is_job_id(entry.job_id):
            raise ValueError(f"{entry.job_id[:80]!r} is not a job id")
        durable.write(self._file(entry.job_id), msgspec.json.encode(entry))

    def forget(self, job_id: str) -> None:
        """Remove the entry of ``job_id``; nothing happens if there is none."""
        self._file(job_id).unlink(missing_ok=True)

    def next_sequence(self) -> int:
        """A number above every one given before, on this node, also before a crash.

        A full disk does not stop it (that news must get out): then only the control plane's Welcome
        keeps numbers from being given again after a crash.
        """
        with self._lock:
            if self._given >= self._reserved:
                self._reserve()
            self._given += 1
            return self._given

    def raise_sequence(self, at_least: int) -> None:
        """Give only numbers above ``at_least`` from now on (the control plane has seen that one)."""
        with self._lock:
            self._given = max(self._given, at_least)

    @property
    def last_sequence(self) -> int:
        """The highest number that may have been given."""
        return self._given

    def _reserve(self) -> None:
        self._reserved = self._given + SEQUENCES_AT_ONCE
        try:
            durable.write(self._sequence_file, str(self._reserved).encode())
        except OSError as cause:
            log.warning("the next sequence numbers could not be reserved on disk: %s", cause)

    def _read_sequence(self) -> int:
        try:
            return int(self._sequence_file.read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            log.warning("the journal's sequence is damaged, beginning anew", exc_info=True)
            return 0  # the control plane's Welcome raises it again

    def _file(self, job_id: str) -> Path:
        return self._folder / (job_id + _SUFFIX)

    def _read(self, file: Path) -> Entry | None:
        try:
            entry = msgspec.json.decode(file.read_bytes(), type=Entry)
            if entry.format != FORMAT or self._file(entry.job_id) != file:
                raise ValueError("another format or another job's file")
        except (ValueError, msgspec.MsgspecError) as cause:
            aside = file.with_suffix(".damaged")
            file.replace(aside)
            log.error("journal file %s can't be read, set aside: %s", aside.name, cause)
            return None
        return entry
