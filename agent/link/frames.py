"""What the two sides say to each other, without protobuf: the shapes that the session works with."""

from __future__ import annotations

from dataclasses import dataclass

from agent.formats.jobs import Job, JobBrief, JobId, RegistryAccess
from agent.node.facts import NodeFacts


@dataclass(frozen=True, slots=True)
class Challenge:
    """The control plane's first word: sign this."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A permission to restore, as signed by the control plane; who uses it checks the signature."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class GrantNews:
    """Grants to keep; ``replace``: these are all."""

    replace: bool
    grants: tuple[SignedGrant, ...] = ()
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class PullAccessNews:
    """How to read from registries; ``replace``: these are all."""

    replace: bool
    registries: tuple[RegistryAccess, ...] = ()
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The join succeeded. News up to ``up_to_sequence`` is stored."""

    session: str
    heartbeat_s: float
    grant_key: bytes
    grants: GrantNews
    pull_access: PullAccessNews
    up_to_sequence: int


@dataclass(frozen=True, slots=True)
class StartJob:
    """A job; ``job`` is None when this agent can't read it, ``problem`` says why."""

    sequence: int
    job_id: str
    epoch: int
    job: Job | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CancelJob:
    """A job is not wanted any more."""

    sequence: int
    job_id: JobId
    epoch: int


@dataclass(frozen=True, slots=True)
class OpenArchive:
    """Send an archive's bytes from ``offset``; ``length`` 0 is to the end.

    With ``image_digest`` it is the archive of that image in the cache.
    """

    sequence: int
    transfer_id: str
    checkpoint_id: str
    offset: int
    length: int
    image_digest: str = ""


@dataclass(frozen=True, slots=True)
class FindPod:
    """Is this pod here? Or, with ``every``: which pods are?"""

    sequence: int
    request_id: str
    namespace: str
    pod_name: str
    every: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """News up to this number is stored; ``news_every_s``: no progress oftener, 0 where it does not matter."""

    up_to_sequence: int
    news_every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OutcomesStored:
    """Outcomes of restores up to this sequence are stored."""

    up_to_sequence: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame of a newer control plane that this agent can't read."""

    sequence: int


Control = (
    Challenge
    | Welcome
    | StartJob
    | CancelJob
    | OpenArchive
    | FindPod
    | Delivered
    | OutcomesStored
    | GrantNews
    | PullAccessNews
    | Unknown
)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who we are, proved by ``signature`` over the challenge."""

    cluster: str
    node: str
    agent_version: str
    boot_id: str
    facts: NodeFacts
    public_key: bytes
    signature: bytes
    last_sequence: int
    jobs: tuple[JobBrief, ...]
