"""What to do about a container: a pure function of its pod, its workload's history and the watcher's setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from controlplane.kube.workloads import (
    CONTAINERS,
    MUTATED,
    SNAP,
    ContainerSeen,
    PodSeen,
    chosen,
    is_checkpoint_image,
)
from controlplane.store.records import CheckpointStatus
from controlplane.watcher.triggers import Due, Setting, due

BACKOFF_S: Final = (30.0, 120.0, 480.0)  # after the first, second, third failure in a row
TRIES: Final = len(BACKOFF_S) + 1
OUTCOME_S: Final = 10.0  # between looks for how a pod was started
_BUSY: Final = frozenset({CheckpointStatus.PENDING, CheckpointStatus.RUNNING})
_OVER: Final = frozenset({"Succeeded", "Failed"})


class Action(StrEnum):
    """What is done about a container."""

    CHECKPOINT = "checkpoint"
    WAIT = "wait"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and why, as one phrase.

    Attributes:
        moment: as in ``Due``.
        again_at: when to decide anew, besides at every change.
        checkpoint: that is there, or is being made.
    """

    action: Action
    reason: str
    moment: str = ""
    again_at: datetime | None = None
    checkpoint: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One checkpoint of a workload, however it went.

    Attributes:
        has_image: it was pushed.
        pod_uid: of the pod that it was made of.
        moment: for which moment it was asked for.
        condemned: why it can't be restored, as trying showed; empty: nothing is known against it.
    """

    checkpoint_id: str
    status: CheckpointStatus
    has_image: bool = False
    moment: str = ""
    ended_at: datetime | None = None
    error: str = ""
    condemned: str = ""
    pod_uid: str = ""

    @property
    def failure(self) -> str:
        """Why it is none to start from; empty: it is one, or is being made, or was deleted."""
        if self.status is CheckpointStatus.COMPLETED:
            unpushed = f"its image was not pushed{f': {self.error}' if self.error else ''}"
            return self.condemned or ("" if self.has_image else unpushed)
        if self.status in (CheckpointStatus.FAILED, CheckpointStatus.CANCELLED):
            return self.error or f"it was {self.status}"
        return ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on besides the pod.

    Attributes:
        attempts: of the workload, newest first.
        started_by: how this container was started, as its node told: restored, cold, failed; empty: unknown.
        not_worth_it: why checkpoints of the workload do no good; empty: they do, or nobody knows.
    """

    attempts: Sequence[Attempt] = ()
    started_by: str = ""
    not_worth_it: str = ""
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a watcher looks; an empty namespace means everywhere."""

    setting: Setting
    namespace: str = ""


def decide(
    scope: Scope, pod: PodSeen, container: ContainerSeen, situation: Situation, now: datetime
) -> Decision:
    """What to do about ``container`` now."""
    if reason := _out_of_scope(scope, pod, container):
        return Decision(Action.SKIP, reason)
    if not container.is_running:
        return Decision(Action.WAIT, "it does not run yet")
    found = due(scope.setting, pod, container, cordoned=situation.cordoned, now=now)
    if not found.moment and (decision := _by_its_start(pod, container, situation, now)):
        return decision
    if found.waits_for:
        return Decision(Action.WAIT, found.waits_for, again_at=found.again_at)
    return _by_attempts(situation, found, now)


def _out_of_scope(scope: Scope, pod: PodSeen, container: ContainerSeen) -> str:
    """Why this watcher has nothing to do with the container, ever; empty: it has."""
    if not pod.is_opted_in:
        return f"the pod's label {SNAP} is {pod.labels.get(SNAP, 'absent')}"
    if scope.namespace and pod.namespace != scope.namespace:
        return f"the watcher looks at namespace {scope.namespace} only"
    if pod.is_mirror:
        return "it is a static pod of its node"
    if pod.phase in _OVER:
        return f"the pod has ended ({pod.phase})"
    if pod.gone_at is not None and scope.setting.trigger != "drain":
        return "the pod is being deleted"
    if container not in chosen(pod):
        return f"the pod's annotation {CONTAINERS} does not name it"
    return ""


def _by_its_start(
    pod: PodSeen, container: ContainerSeen, situation: Situation, now: datetime
) -> Decision | None:
    """A container that came from a checkpoint needs none; whether it did is what its node says, not its label."""
    if situation.started_by == "restored" or is_checkpoint_image(pod, container):
        return Decision(Action.SKIP, "it was started from a checkpoint itself")
    if not situation.started_by and pod.labels.get(MUTATED) == "true":
        reason = "its node has not told yet whether it was started from a checkpoint"
        return Decision(Action.WAIT, reason, again_at=now + timedelta(seconds=OUTCOME_S))
    if situation.not_worth_it:
        return Decision(Action.SKIP, situation.not_worth_it)
    return None


def _by_attempts(situation: Situation, found: Due, now: datetime) -> Decision:
    tries = [a for a in situation.attempts if not found.moment or a.moment == found.moment]
    busy = next((a for a in situation.attempts if a.status in _BUSY), None)
    if busy is not None:
        reason = f"checkpoint {busy.checkpoint_id} of this workload is being made"
        again = None if busy in tries else now + timedelta(seconds=OUTCOME_S)
        return Decision(Action.WAIT, reason, found.moment, again, busy)
    good = next((a for a in tries if _is_good(a)), None)
    if good is not None:
        reason = f"checkpoint {good.checkpoint_id} of this workload is there"
        return Decision(Action.SKIP, reason, found.moment, found.again_at, good)
    failed = [a for a in tries if a.failure]
    if len(failed) >= TRIES:
        reason = f"given up after {len(failed)} tries: {failed[0].failure}"
        return Decision(Action.SKIP, reason, found.moment, found.again_at)
    if failed and failed[0].ended_at is not None:
        again = failed[0].ended_at + timedelta(seconds=BACKOFF_S[len(failed) - 1])
        if again > now:
            reason = f"try {len(failed) + 1} of {TRIES} comes later: {failed[0].failure}"
            return Decision(Action.WAIT, reason, found.moment, again)
    return Decision(Action.CHECKPOINT, _why(found, len(failed)), found.moment, found.again_at)


def _is_good(attempt: Attempt) -> bool:
    return attempt.status is CheckpointStatus.COMPLETED and not attempt.failure


def _why(found: Due, failures: int) -> str:
    reason = found.moment.partition(" ")[0] or "this workload has no checkpoint yet"
    return f"{reason} (try {failures + 1})" if failures else reason
