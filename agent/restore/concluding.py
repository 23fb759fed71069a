"""What the wrapper says after its restore: it worked, which is proved and timed, or it failed, which is explained."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from agent.restore import hanging, hook_running, lazy_restores, pending, proof, recording
from agent.restore.fills import Fills
from agent.restore.holding import HeldImages
from agent.restore.hook_running import Hooked
from agent.restore.inbox import Request
from agent.restore.lazy_restores import LazyRestores
from agent.restore.outcome import Action, Outcome
from agent.restore.pending import Pending
from agent.restore.ports import Pods
from agent.restore.recording import Recorder
from agent.runtimes import commands, criu
from agent.runtimes.commands import Host

_log = logging.getLogger(__name__)
PROVED_WITHIN_S: Final = 5.0
RECORDED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Conclusions:
    """Concludes the restores that were answered, by this agent or an earlier one. ``state`` has one file of each."""

    host: Host
    state: Path
    runtime: Pods
    images: HeldImages
    lazy: LazyRestores
    fills: Fills
    recorder: Recorder
    _hung: set[str] = field(default_factory=set)

    async def started(self, request: Request) -> None:
        """A restored container was let go: prove it, and time it."""
        kept = self._recall(request)
        if kept is None:
            return
        seen = await proof.look(
            self.host,
            request.container_id,
            kept.bundle,
            kept.work,
            within_s=PROVED_WITHIN_S,
        )
        asked_ns = kept.asked_at_ns
        filled = self.fills.take(request.container_id)
        restored_ms = max(seen.restored_at_ns - asked_ns, filled.at_ns - asked_ns, 0) / 1e6
        outcome = msgspec.structs.replace(
            kept.outcome,
            pid=seen.pid,
            restore_ms=max(restored_ms - kept.outcome.prepare_ms, 0.0),
            start_ms=(request.asked_at_ns - asked_ns) / 1e6,
            criu_restore_ms=seen.criu_restore_ms,
            pages_restored=seen.pages_restored + filled.pages,
        )
        if not seen.pid:
            outcome = msgspec.structs.replace(
                outcome,
                action=Action.FAILED,
                code="not_running",
                reason="Restored, but no process of the container runs: it ended at once.",
            )
        elif kept.hooked:
            outcome = await self._run_hook(kept.hooked, kept.bundle, outcome)
        for aside in kept.asides:
            await asyncio.to_thread(shutil.rmtree, self.host.path(aside), ignore_errors=True)
        await self.recorder.record(outcome)

    async def failed(self, request: Request) -> None:
        """CRIU or the runtime failed, and the container starts cold: say why."""
        ended = await self.lazy.give_up(request.container_id)
        await self.fills.give_up(request.container_id)
        filled = self.fills.take(request.container_id)
        kept = self._recall(request)
        if kept is None:
            return
        log = await asyncio.to_thread(criu.read_log, self.host, f"{kept.work}/restore.log")
        cause = criu.cause(log)
        why = cause.sentence if cause else "the OCI runtime gave no reason in CRIU's log."
        if filled.failure and cause is None:
            why = f"its memory could not be brought: {filled.failure}"
        if request.container_id in self._hung:
            self._hung.discard(request.container_id)
            why = f"CRIU did not finish within {kept.patience_s:.0f} s and was killed."
        code = "criu_failed"
        if ended and ended.died:
            code = lazy_restores.LOST_CODE
            why = "the daemon that brings its memory died before the restore was done."
        outcome = msgspec.structs.replace(
            kept.outcome,
            action=Action.FAILED,
            code=code,
            reason=f"The restore failed and the container started cold: {why}",
            details="\n".join(cause.lines) if cause else "",
        )
        await self.recorder.record(outcome)

    async def end_overdue(self) -> None:
        """End the restores that take too long; the wrapper then undoes and starts cold."""
        for container_id, _ in list(pending.overdue(self.state)):
            if await hanging.stop(self.host, container_id):
                self._hung.add(container_id)
                _log.warning("the restore of %s hung, killed", container_id)
            self.images.release(container_id)

    def _recall(self, request: Request) -> Pending | None:
        if not self.lazy.is_running(request.container_id):
            self.images.release(request.container_id)
        return pending.recall(self.state, request.container_id)

    async def _run_hook(self, hooked: Hooked, bundle: str, outcome: Outcome) -> Outcome:
        """``outcome`` with how the workload's hook ended."""
        whose = hook_running.Whose(outcome.container_id, outcome.sandbox_id, bundle, outcome.pid)
        try:
            ended = await hook_running.run(self.host, self.runtime, whose, hooked)
        except asyncio.CancelledError:
            ended = hook_running.Ended("The agent was stopped while it ran.", 0.0)
            told = self.recorder.record(recording.with_hook(outcome, ended))
            await commands.finish(told, RECORDED_S)
            raise
        return recording.with_hook(outcome, ended)
