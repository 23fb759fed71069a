"""What a watcher is told to become, and what that makes of the one that is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.errors import Refused
from controlplane.store.watchers import WatcherRow
from controlplane.watcher import triggers


@dataclass(frozen=True, slots=True)
class WatcherDraft:
    """What a watcher is set to, or what it becomes; None keeps what is there.

    Attributes:
        cluster: empty for the only one.
    """

    name: str
    cluster: str | None = None
    scope: str | None = None
    namespace: str | None = None
    trigger: str | None = None
    auto_delete_pod: bool | None = None
    delay_s: float | None = None
    schedule: str | None = None


def drawn(old: WatcherRow, draft: WatcherDraft) -> WatcherRow:
    """What ``draft`` makes of ``old``.

    Raises:
        Refused: a namespace is missing, or the schedule is none.
    """
    new = replace(
        old,
        scope=draft.scope or old.scope,
        namespace=old.namespace if draft.namespace is None else draft.namespace,
        trigger=draft.trigger or old.trigger,
        auto_delete_pod=(
            old.auto_delete_pod if draft.auto_delete_pod is None else draft.auto_delete_pod
        ),
        delay_s=old.delay_s if draft.delay_s is None else draft.delay_s,
        schedule=old.schedule if draft.schedule is None else draft.schedule,
    )
    if new.trigger == "schedule":
        triggers.check_schedule(new.schedule)
    if new.scope == "namespace" and not new.namespace:
        raise Refused("Field `namespace` is required with scope namespace.")
    return new
