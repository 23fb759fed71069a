"""Preparing the node once, when the agent starts; until that has ended the node is not ready.

What stood against it is told until preparing, or taking that back, worked when a job asked for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from agent import errors
from agent.formats.jobs import Report
from agent.node import prepare
from agent.node.facts import NodeFacts, Reason

_log = logging.getLogger(__name__)

BEING_PREPARED: Final = Reason(
    "BeingPrepared",
    "The node is being prepared for restores.",
    "Wait until that has ended: seconds, or as long as a dump takes that runs.",
)
_REMEDY: Final = "See the message; then POST /cluster/nodes/{node}/prepare or start the agent anew."


class Known(Protocol):
    """What is known of the node (``here.Here``)."""

    def facts(self) -> NodeFacts: ...

    def note(self, reason: Reason | None) -> None: ...


class Preparer(Protocol):
    """Prepares the node (``prepare.Preparer``)."""

    async def prepare_at_start(self, report: Report) -> None: ...

    async def prepare(self, report: Report) -> None: ...

    async def undo(self, report: Report) -> None: ...


class Jobs(Protocol):
    """What the agent has to do (``jobs.runner.Runner``)."""

    settled: asyncio.Event

    def without_dumps(self) -> AbstractAsyncContextManager[None]: ...


def announce(known: Known) -> None:
    """Have the node not ready until ``run`` has prepared it; one that was prepared before stays ready."""
    if prepare.RUNTIME_DRIVER not in known.facts().restore_drivers:
        known.note(BEING_PREPARED)


async def run(preparer: Preparer, known: Known, jobs: Jobs) -> None:
    """Prepare the node; what stands against it becomes a reason that only limits it."""
    await jobs.settled.wait()  # what a dead agent had begun may be a dump
    ended: Reason | None = _failed("the agent's log says why")
    try:
        async with jobs.without_dumps():
            await preparer.prepare_at_start(lambda said: _log.info("preparing: %s", said.message))
        ended = None
    except errors.SnapError as failure:
        _log.warning("the node could not be prepared: %s %s", failure.message, failure.details)
        ended = _failed(failure.message)
    except OSError as failure:
        _log.warning("the node could not be prepared: %s", failure)
        ended = _failed(f"{failure.strerror} ({failure.filename})")
    finally:
        known.note(ended)
    await asyncio.Event().wait()  # a service runs for as long as the agent


@dataclass(frozen=True, slots=True)
class Asked:
    """Prepares the node when a job asks for it; once that worked, what failed at the start is over."""

    preparer: Preparer
    known: Known

    async def prepare(self, report: Report) -> None:
        """As ``prepare.Preparer.prepare``."""
        await self.preparer.prepare(report)
        self.known.note(None)

    async def undo(self, report: Report) -> None:
        """As ``prepare.Preparer.undo``; what was taken back lacks nothing that was to be there."""
        await self.preparer.undo(report)
        self.known.note(None)


def _failed(why: str) -> Reason:
    return Reason(
        "PrepareFailed", f"The node could not be prepared: {why}", _REMEDY, blocking=False
    )
