"""What is asked of the job table: a job to keep, a filter, a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlite_utils import Database

from controlplane.identity import Actor
from controlplane.store.records import Job, JobKind, JobSpec, JobState

AlsoWrite = Callable[[Database, Job], None]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key for "the same request again", as given, and the SHA-256 of its body."""

    key: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to store and hand to its node.

    Attributes:
        task_name: what users read in front of the progress bar.
        job_id: minted before by ``clock.new_ulid``; empty: minted here.
        also_write: runs in the transaction that stores the row (rows of checkpoints, secrets).
    """

    kind: JobKind
    cluster: str
    node: str
    spec: JobSpec
    actor: Actor
    task_name: str
    namespace: str = ""
    job_id: str = ""
    idempotency: Idempotency | None = None
    also_write: AlsoWrite | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; what is None or empty matches all. ``owner`` keeps others' jobs out."""

    state: JobState | None = None
    kind: JobKind | None = None
    cluster: str = ""
    node: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first; ``next_cursor`` is None at the end."""

    items: tuple[Job, ...]
    next_cursor: str | None
