"""Outcomes of restores as news for the control plane: said in every session until it has stored them."""

from __future__ import annotations

import asyncio

from agent.restore.outcome import Outcome, OutcomeLog


class OutcomeNews:
    """What is to be told of the log ``kept``; ``on_outcome`` is called with each that is added to it."""

    def __init__(self, kept: OutcomeLog) -> None:
        self._kept = kept
        self._sent = 0  # in this session
        self._news = asyncio.Event()
        self._news.set()

    def on_outcome(self, _: Outcome) -> None:
        """There is one more."""
        self._news.set()

    def begin_session(self) -> None:
        """Say again what is not acknowledged."""
        self._sent = 0
        self._news.set()

    async def take(self) -> tuple[Outcome, ...]:
        """What is to be sent now, oldest first; waits until there is something."""
        while True:
            await self._news.wait()
            self._news.clear()
            if taken := await asyncio.to_thread(self._kept.untold, self._sent):
                self._sent = taken[-1].sequence
                self._news.set()  # there may be more than fit
                return taken

    async def acknowledged(self, up_to: int) -> None:
        """The control plane has stored what was sent under numbers up to ``up_to``."""
        await asyncio.to_thread(self._kept.told, up_to)
