"""The side that answers the wrapper: takes requests, decides in time, proves what was restored, keeps the record."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from asyncinotify import Inotify, Mask

from agent import errors
from agent.restore import inbox, pending, recording
from agent.restore.cold import StartCold
from agent.restore.concluding import Conclusions
from agent.restore.decision import Decider
from agent.restore.fills import Fills
from agent.restore.folders import Folders
from agent.restore.identifying import Subject
from agent.restore.inbox import Answer, Inbox, Request, Verb
from agent.restore.lazy_restores import LazyRestores
from agent.restore.outcome import Outcome
from agent.restore.recording import Recorder
from agent.runtimes.commands import Host

_log = logging.getLogger(__name__)
LOCK: Final = "/run/snap/agent.lock"
REQUESTS: Final = "/run/snap/requests"
RESCAN_S: Final = 5.0  # should a notification ever be lost
SWEEP_S: Final = 600.0
LET_GO_S: Final = 2.0
KEPT_WORK_FOLDERS: Final = 50


@dataclass(slots=True)
class RestoreService:
    """Answers every wrapper of this node until it is cancelled. One for each node: it holds the lock.

    Attributes:
        decider: the checks and the preparation.
        recorder: where outcomes go.
    """

    host: Host
    folders: Folders
    decider: Decider
    recorder: Recorder
    _lazy: LazyRestores = field(init=False)
    _fills: Fills = field(init=False)
    _conclusions: Conclusions = field(init=False)

    def __post_init__(self) -> None:
        images = self.decider.images
        self._lazy = LazyRestores(self.host, self.folders, images)
        self._fills = Fills(self.host, self.folders)
        self._conclusions = Conclusions(
            host=self.host,
            state=self._state,
            runtime=self.decider.runtime,
            images=images,
            lazy=self._lazy,
            fills=self._fills,
            recorder=self.recorder,
        )

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
            box.take_up()
            self._adopt()
            watching = self._lazy.watch_for_ever(self.recorder.record)
            group.create_task(watching, name="lazy restores")
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
            self.decider.images.hold_again(container_id, kept.outcome.image)
        self._lazy.adopt()
        self._fills.adopt()

    async def _handle(self, box: Inbox, request: Request) -> None:
        match request.verb:
            case Verb.ASK:
                await self._answer(box, request)
            case Verb.STARTED:
                await self._conclusions.started(request)
                # one whose pod has a hook waits for this before `start` returns
                await box.answer(request.container_id, Answer(restore=False), within_s=LET_GO_S)
            case Verb.FAILED:
                await self._conclusions.failed(request)

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
            await self._give_up(request)
            self.decider.images.release(request.container_id)

    async def _give_up(self, request: Request) -> None:
        """Nobody restores it: have nothing wait to bring its memory."""
        await self._lazy.give_up(request.container_id)
        await self._fills.give_up(request.container_id)

    async def _prepared(self, request: Request, subject: Subject) -> tuple[Answer, Outcome]:
        """The answer, everything behind it done, and what will be on record if all goes well.

        The daemon that brings a lazy restore's memory starts while files are written: neither needs the other.

        Raises:
            StartCold: it is not to be; no daemon is left.
        """
        decision = await self.decider.decide(request, subject)
        why = decision.answer.reason
        expected = recording.restored(request, subject, reason=why)
        beginning = asyncio.create_task(
            self._begin(request, decision.answer, expected),
            name=f"begin memory of {request.container_id[:12]}",
        )
        try:
            prepared = await decision.prepare()
        except BaseException:  # cancelled too: the daemon would wait for nobody
            await asyncio.wait({beginning})
            await self._give_up(request)
            raise
        began = await beginning
        answer = dataclasses.replace(
            prepared, lazy=began.lazy, fill_s=began.fill_s, mode_reason=began.mode_reason
        )
        expected = recording.restored(request, subject, reason=why)
        mode = "lazy" if answer.lazy else "eager"
        return answer, msgspec.structs.replace(expected, mode=mode, mode_reason=answer.mode_reason)

    async def _begin(self, request: Request, answer: Answer, expected: Outcome) -> Answer:
        """``answer`` with the memory's way here begun."""
        began = await self._lazy.begin(request, answer, expected)
        return await self._fills.begin(request.container_id, began)

    async def _cold(self, box: Inbox, request: Request, subject: Subject, cold: StartCold) -> None:
        self.decider.images.release(request.container_id)
        left_s = max(inbox.WRAPPER_WAITS_S - request.age_s, 0)
        answer = Answer(restore=False, reason=cold.reason)
        await box.answer(request.container_id, answer, within_s=left_s)
        if cold.code:  # without one there was nothing to restore
            await self.recorder.record(recording.cold(request, subject, cold))

    async def _watch_for_ever(self) -> None:
        while True:
            await self._conclusions.end_overdue()
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
