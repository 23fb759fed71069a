"""The lazy restores of this node that are under way: begun, held, and on record when their memory never came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from agent import errors
from agent.restore import lazy_pages, pending
from agent.restore.folders import Folders
from agent.restore.holding import HeldImages
from agent.restore.inbox import Answer, Request
from agent.restore.lazy_pages import End, Transfer
from agent.restore.outcome import Action, Outcome
from agent.runtimes import criu
from agent.runtimes.commands import Host

_log = logging.getLogger(__name__)
LOOK_S: Final = 0.2
LOST_CODE: Final = "lazy_lost"


@dataclass(slots=True)
class LazyRestores:
    """Knows every transfer whose end nobody has heard. Its image stays in the cache for as long."""

    host: Host
    folders: Folders
    images: HeldImages
    _running: dict[str, Transfer] = field(default_factory=dict)

    def adopt(self) -> None:
        """Take over what an earlier agent began. Blocks for a moment."""
        for transfer in lazy_pages.unfinished(self.host, self.folders.work):
            self._running[transfer.container_id] = transfer
            self.images.hold_again(transfer.container_id, transfer.expected.image)

    def is_running(self, container_id: str) -> bool:
        """Whether the container's memory is on its way."""
        return container_id in self._running

    async def begin(self, request: Request, answer: Answer, expected: Outcome) -> Answer:
        """Have the memory of ``answer`` brought, if it is a lazy one; should that fail: the same, eager."""
        if not answer.lazy:
            return answer
        transfer = Transfer(
            container_id=request.container_id,
            bundle=request.bundle,
            images=answer.images,
            work=answer.work,
            state=f"{self.folders.state}/{request.container_id}",
            expected=expected,
        )
        try:
            await lazy_pages.begin(self.host, transfer)
        except (errors.SnapError, OSError) as cause:
            _log.warning("%s is restored eagerly: %s", request.container_id, cause)
            return replace(answer, lazy=False, mode_reason=f"Lazily it can't begin: {cause}")
        self._running[request.container_id] = transfer
        return answer

    async def give_up(self, container_id: str) -> End | None:
        """The container is not restored with it; returns how it ended if it had ended by itself."""
        transfer = self._running.pop(container_id, None)
        if transfer is None:
            return None
        end = lazy_pages.end_of(self.host, transfer)
        try:
            await lazy_pages.abandon(self.host, transfer)
        except errors.SnapError as cause:
            _log.warning("the daemon of %s can't be ended: %s", container_id, cause)
        return end or lazy_pages.end_of(self.host, transfer)

    async def watch_for_ever(self, record: Callable[[Outcome], Awaitable[None]]) -> None:
        """Hear how each ends; ``record`` those that cost their container its life."""
        while True:
            for transfer in list(self._running.values()):
                try:
                    await self._look(transfer, record)
                except (errors.SnapError, OSError) as cause:
                    _log.warning("looking after %s: %s", transfer.container_id, cause)
            await asyncio.sleep(LOOK_S)

    async def _look(self, transfer: Transfer, record: Callable[[Outcome], Awaitable[None]]) -> None:
        container_id = transfer.container_id
        if await self._is_stray(transfer):
            await self.give_up(container_id)
            self.images.release(container_id)
            return
        end = await lazy_pages.look(self.host, transfer)
        if end is None or pending.is_there(self.host.path(self.folders.state), container_id):
            return  # the wrapper will yet say whether the restore worked at all
        if self._running.pop(container_id, None) is None:
            return
        self.images.release(container_id)
        if end.outcome == "killed" or (end.outcome == "ended" and end.died):
            await record(await asyncio.to_thread(self._lost, transfer, end))
        else:
            _log.info("memory of %s: %s in %.0f ms", container_id, end.outcome, end.took_ms)
        await asyncio.to_thread(lazy_pages.forget, self.host, transfer)

    async def _is_stray(self, transfer: Transfer) -> bool:
        """Whether the wrapper never came for it: it was killed, or did not hear the answer."""
        if lazy_pages.is_wanted(self.host, transfer):
            return False
        age_s = await asyncio.to_thread(lazy_pages.age_s, self.host, transfer)
        return age_s > lazy_pages.STRAY_S

    def _lost(self, transfer: Transfer, end: End) -> Outcome:
        said = criu.read_log(self.host, f"{transfer.work}/lazy-pages.log")
        how = f"status {end.status}" if end.status < 128 else f"signal {end.status - 128}"
        return msgspec.structs.replace(
            transfer.expected,
            action=Action.FAILED,
            code=LOST_CODE,
            reason=(
                f"{end.outcome.capitalize()}: the daemon that brought its memory died ({how}) "
                f"after {end.took_ms:.0f} ms, before the last page; what had not arrived would have read as zeros."
            ),
            details="\n".join(said.splitlines()[-5:]),
        )
