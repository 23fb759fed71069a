"""The side that answers the wrapper: takes requests, decides in time, proves what was restored, keeps the record."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from asyncinotify import Inotify, Mask

from agent import errors
from agent.restore import hanging, hook_running, inbox, lazy_restores, pending, proof
from agent.restore.decision import Decider, Folders, StartCold, Subject
from agent.restore.hook_running import Hooked
from agent.restore.inbox import Answer, Inbox, Request, Verb
from agent.restore.lazy_restores import LazyRestores
from agent.restore.outcome import Action, OnOutcome, Outcome, OutcomeLog
from agent.restore.pending import Pending
from agent.runtimes import commands, criu
from agent.runtimes.commands import Host

_log = logging.getLogger(__name__)
LOCK: Final = "/run/snap/agent.lock"
REQUESTS: Final = "/run/snap/requests"
RESCAN_S: Final = 5.0  # should a notification ever be lost
SWEEP_S: Final = 600.0
PROVED_WITHIN_S: Final = 5.0
LET_GO_S: Final = 2.0
RECORDED_S: Final = 2.0
KEPT_WORK_FOLDERS: Final = 50


@dataclass(slots=True)
class RestoreService:
    """Answers every wrapper of this node until it is cancelled. One for each node: it holds the lock.

    Attributes:
        decider: the checks and the preparation.
        outcomes: the record; ``on_outcome`` is told too.
    """

    host: Host
    folders: Folders
    decider: Decider
    outcomes: OutcomeLog
    on_outcome: OnOutcome = lambda _: None
    _hung: set[str] = field(default_factory=set)
    _lazy: LazyRestores = field(init=False)

    def __post_init__(self) -> None:
        self._lazy = LazyRestores(self.host, self.folders, self.decider)

    @property
    def _state(self) -> Path:
        return self.host.path(self.folders.state)

    async def run(self) -> None:
        """Serve.

        Raises:
            Broken: another agent serves this node.
        """
        box = Inbox(self.host.path(REQUESTS))
        box.prepare()
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with inbox.lock(self.host.path(LOCK)), asyncio.TaskGroup() as group:
            self._adopt()
            group.create_task(self._lazy.watch_for_ever(self._record), name="lazy restores")
            group.create_task(self._sweep_for_ever(box), name="restore sweep")
            group.create_task(self._watch_for_ever(), name="restore watch")
            with Inotify() as watch:
                watch.add_watch(box.folder, Mask.MOVED_TO | Mask.ONLYDIR)
                while True:
                    for file in box.waiting():
                        if request := box.take(file):
                            name = f"restore {request.verb} {request.container_id[:12]}"
                            group.create_task(self._handle(box, request), name=name)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RESCAN_S):
                            await watch.get()

    def _adopt(self) -> None:
        """Hold the images that restores of an earlier agent read from."""
        for container_id, kept in pending.every(self._state):
            self.decider.hold_again(container_id, kept.outcome.image)
        self._lazy.adopt()

    async def _handle(self, box: Inbox, request: Request) -> None:
        match request.verb:
            case Verb.ASK:
                await self._answer(box, request)
            case Verb.STARTED:
                await self._started(request)
                # one whose pod has a hook waits for this before `start` returns
                await box.answer(request.container_id, Answer(restore=False), within_s=LET_GO_S)
            case Verb.FAILED:
                await self._failed(request)

    async def _answer(self, box: Inbox, request: Request) -> None:
        left_s = inbox.WRAPPER_WAITS_S - request.age_s
        if left_s <= 0:
            _log.info("request of %s is stale; its container started cold", request.container_id)
            return
        subject = Subject()
        try:
            answer, expected = await self._prepared(request, subject)
        except StartCold as cold:
            await self._cold(box, request, subject, cold)
            return
        except (errors.SnapError, OSError, ValueError) as cause:
            _log.exception("deciding about %s failed", request.container_id)
            failure = StartCold("agent_error", f"Not restored: the agent failed: {cause}")
            await self._cold(box, request, subject, failure)
            return
        await asyncio.to_thread(pending.remember, self._state, request, answer, expected)
        left_s = inbox.WRAPPER_WAITS_S - request.age_s
        if not await box.answer(request.container_id, answer, within_s=max(left_s, 0)):
            _log.warning("the wrapper of %s did not wait for its answer", request.container_id)
            await self._lazy.give_up(request.container_id)
            self.decider.release(request.container_id)

    async def _prepared(self, request: Request, subject: Subject) -> tuple[Answer, Outcome]:
        """The answer, everything behind it done, and what will be on record if all goes well.

        The daemon that brings a lazy restore's memory starts while files are written: neither needs the other.

        Raises:
            StartCold: it is not to be; no daemon is left.
        """
        decision = await self.decider.decide(request, subject)
        why = decision.answer.reason
        expected = _outcome(request, subject, Action.RESTORED, reason=why)
        beginning = asyncio.create_task(
            self._lazy.begin(request, decision.answer, expected),
            name=f"memory of {request.container_id[:12]}",
        )
        try:
            prepared = await decision.prepare()
        except BaseException:  # cancelled too: the daemon would wait for nobody
            await asyncio.wait({beginning})
            await self._lazy.give_up(request.container_id)
            raise
        began = await beginning
        answer = dataclasses.replace(prepared, lazy=began.lazy, mode_reason=began.mode_reason)
        expected = _outcome(request, subject, Action.RESTORED, reason=why)
        mode = "lazy" if answer.lazy else "eager"
        return answer, msgspec.structs.replace(expected, mode=mode, mode_reason=answer.mode_reason)

    async def _cold(self, box: Inbox, request: Request, subject: Subject, cold: StartCold) -> None:
        self.decider.release(request.container_id)
        left_s = max(inbox.WRAPPER_WAITS_S - request.age_s, 0)
        answer = Answer(restore=False, reason=cold.reason)
        await box.answer(request.container_id, answer, within_s=left_s)
        if cold.code:  # without one there was nothing to restore
            await self._record(
                _outcome(
                    request,
                    subject,
                    Action.COLD,
                    code=cold.code,
                    reason=cold.reason,
                    details=cold.details,
                )
            )

    def _recall(self, request: Request) -> Pending | None:
        if not self._lazy.is_running(request.container_id):
            self.decider.release(request.container_id)
        return pending.recall(self._state, request.container_id)

    async def _started(self, request: Request) -> None:
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
        restored_ms = max(seen.restored_at_ns - asked_ns, 0) / 1e6
        outcome = msgspec.structs.replace(
            kept.outcome,
            pid=seen.pid,
            restore_ms=max(restored_ms - kept.outcome.prepare_ms, 0.0),
            start_ms=(request.asked_at_ns - asked_ns) / 1e6,
            criu_restore_ms=seen.criu_restore_ms,
            pages_restored=seen.pages_restored,
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
        await self._record(outcome)

    async def _run_hook(self, hooked: Hooked, bundle: str, outcome: Outcome) -> Outcome:
        """``outcome`` with how the workload's hook ended."""
        whose = hook_running.Whose(outcome.container_id, outcome.sandbox_id, bundle, outcome.pid)
        try:
            ended = await hook_running.run(self.host, self.decider.runtime, whose, hooked)
        except asyncio.CancelledError:
            ended = hook_running.Ended("The agent was stopped while it ran.", 0.0)
            await commands.finish(self._record(_with_hook(outcome, ended)), RECORDED_S)
            raise
        return _with_hook(outcome, ended)

    async def _failed(self, request: Request) -> None:
        """CRIU or the runtime failed, and the container starts cold: say why."""
        ended = await self._lazy.give_up(request.container_id)
        kept = self._recall(request)
        if kept is None:
            return
        log = await asyncio.to_thread(criu.read_log, self.host, f"{kept.work}/restore.log")
        cause = criu.cause(log)
        why = cause.sentence if cause else "the OCI runtime gave no reason in CRIU's log."
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
        await self._record(outcome)

    async def _record(self, outcome: Outcome) -> None:
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
            await asyncio.to_thread(self.outcomes.add, outcome)
        except OSError as cause:
            _log.warning("the outcome can't be kept: %s", cause)
        self.on_outcome(outcome)

    async def _watch_for_ever(self) -> None:
        """End the restores that take too long; the wrapper then undoes and starts cold."""
        while True:
            for container_id, _ in list(pending.overdue(self._state)):
                if await hanging.stop(self.host, container_id):
                    self._hung.add(container_id)
                    _log.warning("the restore of %s hung, killed", container_id)
                self.decider.release(container_id)
            await asyncio.sleep(RESCAN_S)

    async def _sweep_for_ever(self, box: Inbox) -> None:
        while True:
            box.sweep(older_than_s=6 * inbox.WRAPPER_WAITS_S)
            await self._sweep_ledger()
            await asyncio.to_thread(self._sweep_work)
            await asyncio.sleep(SWEEP_S)

    async def _sweep_ledger(self) -> None:
        """Forget the sandboxes that the runtime has forgotten; while it is silent nothing is."""
        marked = list(self.decider.ledger.sandboxes())
        try:
            known = {sandbox.id for sandbox in await self.decider.runtime.sandboxes()}
        except errors.SnapError:
            return
        for sandbox_id in set(marked) - known:
            self.decider.ledger.forget(sandbox_id)

    def _sweep_work(self) -> None:
        """Keep the logs of the last restores."""
        folder = self.host.path(self.folders.work)
        if not folder.is_dir():
            return
        entries = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in entries[KEPT_WORK_FOLDERS:]:
            shutil.rmtree(entry, ignore_errors=True)


def _outcome(
    request: Request,
    subject: Subject,
    action: Action,
    *,
    code: str = "",
    reason: str = "",
    details: str = "",
) -> Outcome:
    return Outcome(
        action=action,
        container_id=request.container_id,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        code=code,
        reason=reason,
        details=details,
        namespace=subject.namespace,
        pod_name=subject.pod_name,
        pod_uid=subject.pod_uid,
        container_name=subject.container_name,
        sandbox_id=subject.sandbox_id,
        image=subject.image,
        prepare_ms=(time.time_ns() - request.asked_at_ns) / 1e6,
    )


def _with_hook(outcome: Outcome, ended: hook_running.Ended) -> Outcome:
    if not ended.failure:
        return msgspec.structs.replace(outcome, hook_ms=ended.took_ms)
    return msgspec.structs.replace(
        outcome,
        hook_ms=ended.took_ms,
        code=hook_running.FAILED_CODE,
        reason=f"Its post-restore hook failed: {ended.failure}",
    )
