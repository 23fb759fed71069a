"""When a container's checkpoint is due: one pure function for each trigger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

from controlplane.errors import Refused
from controlplane.kube.workloads import REQUEST, ContainerSeen, PodSeen, ready_for

GRACE_S: Final = 3.0  # less of a pod's grace time is left to it: a dump would not be whole
_FIELDS: Final = 5
_EVER: Final = datetime.fromtimestamp(0, UTC)
_YEARS: Final = timedelta(days=366 * 5)  # CronSim looks no further itself


@dataclass(frozen=True, slots=True)
class Setting:
    """When a watcher acts.

    Attributes:
        trigger: startupProbe, ready, running, annotation, schedule or drain.
        delay_s: how long a pod must be ready (trigger ready) or run (trigger running) before.
        schedule: five fields of cron, UTC.
        since: when the watcher was started; ticks before it are over.
    """

    trigger: str
    delay_s: float = 0.0
    schedule: str = ""
    since: datetime = _EVER


@dataclass(frozen=True, slots=True)
class Due:
    """Whether it is due.

    Attributes:
        waits_for: why not yet; empty: it is due.
        again_at: when to look again, besides at every change of the pod.
        moment: what asked, for triggers that ask for the state of a moment: once for each, however many
            checkpoints there are of the workload. Empty: one is enough for ever.
    """

    waits_for: str = ""
    again_at: datetime | None = None
    moment: str = ""


def due(
    setting: Setting, pod: PodSeen, container: ContainerSeen, *, cordoned: bool, now: datetime
) -> Due:
    """Whether a running container's checkpoint is due.

    Args:
        cordoned: the pod's node takes no more pods.
    """
    return _TRIGGERS[setting.trigger](setting, pod, container, cordoned, now)


def check_schedule(text: str) -> None:
    """Raise Refused unless ``text`` is a schedule."""
    try:
        if len(text.split()) != _FIELDS:  # CronSim also takes six, the first of them seconds
            raise CronSimError("Wrong number of fields")
        CronSim(text, datetime.now(UTC))
    except (CronSimError, AssertionError) as cause:  # it asserts that no step follows "5L" or "1#2"
        raise Refused(
            f"Field `schedule` must be five fields as cron has them (UTC), not {text!r}.",
            details=str(cause) or "Bad step",
        ) from cause


def _started(
    _setting: Setting, _pod: PodSeen, container: ContainerSeen, _cordoned: bool, _now: datetime
) -> Due:
    if not container.has_startup_probe and not container.is_ready:
        # "started" is true at once without a probe: nothing would be warm
        return Due("it has no startup probe, and is not ready yet")
    return Due() if container.is_started else Due("its startup probe has not succeeded yet")


def _ready(
    setting: Setting, pod: PodSeen, container: ContainerSeen, _cordoned: bool, now: datetime
) -> Due:
    since = ready_for(pod, now)
    if since is None or not container.is_ready:
        return Due("the pod is not ready yet")
    return _after(setting.delay_s, since, now, "ready")


def _running(
    setting: Setting, _pod: PodSeen, container: ContainerSeen, _cordoned: bool, now: datetime
) -> Due:
    assert container.running_since is not None  # noqa: S101 - only running ones are asked about
    return _after(setting.delay_s, now - container.running_since, now, "running")


def _annotation(
    _setting: Setting, pod: PodSeen, _container: ContainerSeen, _cordoned: bool, _now: datetime
) -> Due:
    value = pod.annotations.get(REQUEST, "")
    if value.lower() in ("", "false"):
        return Due(f"the pod has no annotation {REQUEST}")
    return Due(moment=f"annotation {pod.uid} {value[:200]}")


def _schedule(
    setting: Setting, _pod: PodSeen, container: ContainerSeen, _cordoned: bool, now: datetime
) -> Due:
    assert container.running_since is not None  # noqa: S101 - only running ones are asked about
    begin = max(setting.since, container.running_since, now - _YEARS)
    last = next(CronSim(setting.schedule, now + timedelta(microseconds=1), reverse=True), None)
    upcoming = next(CronSim(setting.schedule, now), None)
    if last is None or last < begin:
        return Due(f"its time ({setting.schedule}) has not come yet", upcoming)
    return Due(again_at=upcoming, moment=f"schedule {last.isoformat()}")


def _drain(
    _setting: Setting, pod: PodSeen, _container: ContainerSeen, cordoned: bool, now: datetime
) -> Due:
    if pod.gone_at is not None:
        if (pod.gone_at - now).total_seconds() < GRACE_S:
            return Due("too little of its grace time is left")
        return Due(moment=f"drain {pod.uid}")
    if cordoned:
        return Due(moment=f"drain {pod.uid}")
    return Due("its node is not cordoned, and it is not being deleted")


def _after(delay_s: float, since: timedelta, now: datetime, what: str) -> Due:
    left = timedelta(seconds=delay_s) - since
    if left <= timedelta():
        return Due()
    return Due(f"it is to be {what} for {delay_s:g} s first", now + left)


_TRIGGERS: Final[dict[str, Callable[[Setting, PodSeen, ContainerSeen, bool, datetime], Due]]] = {
    "startupProbe": _started,
    "ready": _ready,
    "running": _running,
    "annotation": _annotation,
    "schedule": _schedule,
    "drain": _drain,
}
TRIGGERS: Final = frozenset(_TRIGGERS)
