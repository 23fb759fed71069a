"""Outcomes, made of what is known at each moment, logged, kept and told."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from agent.restore import hook_running
from agent.restore.cold import StartCold
from agent.restore.identifying import Subject
from agent.restore.inbox import Request
from agent.restore.outcome import Action, OnOutcome, Outcome, OutcomeLog

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Keeps outcomes in ``kept``; ``on_outcome`` is told too."""

    kept: OutcomeLog
    on_outcome: OnOutcome = lambda _: None

    async def record(self, outcome: Outcome) -> None:
        """Log ``outcome``, keep it and tell of it."""
        well = outcome.action is Action.RESTORED and not outcome.code
        level = logging.INFO if well else logging.WARNING
        _log.log(
            level,
            "%s/%s container %s: %s %s",
            outcome.namespace,
            outcome.pod_name,
            outcome.container_name,
            outcome.action,
            f"in {outcome.start_ms:.0f} ms (pid {outcome.pid}) {outcome.reason}"
            if outcome.action is Action.RESTORED
            else outcome.reason,
        )
        try:
            await asyncio.to_thread(self.kept.add, outcome)
        except OSError as cause:
            _log.warning("the outcome can't be kept: %s", cause)
        self.on_outcome(outcome)


def restored(request: Request, subject: Subject, *, reason: str) -> Outcome:
    """The outcome of a container that is to be restored, as far as it is known when the answer is."""
    return Outcome(
        action=Action.RESTORED,
        container_id=request.container_id,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        reason=reason,
        namespace=subject.namespace,
        pod_name=subject.pod_name,
        pod_uid=subject.pod_uid,
        container_name=subject.container_name,
        sandbox_id=subject.sandbox_id,
        image=subject.image,
        prepare_ms=(time.time_ns() - request.asked_at_ns) / 1e6,
    )


def cold(request: Request, subject: Subject, why: StartCold) -> Outcome:
    """The outcome of a container that starts cold."""
    return msgspec.structs.replace(
        restored(request, subject, reason=why.reason),
        action=Action.COLD,
        code=why.code,
        details=why.details,
    )


def with_hook(outcome: Outcome, ended: hook_running.Ended) -> Outcome:
    """``outcome`` with how the workload's hook ended."""
    if not ended.failure:
        return msgspec.structs.replace(outcome, hook_ms=ended.took_ms)
    return msgspec.structs.replace(
        outcome,
        hook_ms=ended.took_ms,
        code=hook_running.FAILED_CODE,
        reason=f"Its post-restore hook failed: {ended.failure}",
    )
