"""A loop that goes on after failures ends when it is cancelled, also when both come at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from agent import app
from agent.link import session
from agent.link.conversation import Ended
from agent.link.session import Dialling, Session


class Failing:
    """A task group whose first member fails, and whose other then takes its time to end."""

    def __init__(self, failure: Exception) -> None:
        self.welcomed = asyncio.Event()
        self.is_ending = asyncio.Event()
        self.may_end = asyncio.Event()
        self._failure = failure

    async def hold(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._linger())
                await asyncio.sleep(0)  # both have begun
                group.create_task(self._fail())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _fail(self) -> None:
        raise self._failure

    async def _linger(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self.is_ending.set()
        await self.may_end.wait()


async def cancel_while_it_fails(task: asyncio.Task[None], failing: Failing) -> None:
    async with asyncio.timeout(10):
        await failing.is_ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    failing.may_end.set()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done
    assert task.cancelled()


async def test_a_link_ends_with_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(Ended("the control plane closed the stream"))
    monkeypatch.setattr(session, "Conversation", lambda *_: failing)
    nobody: Any = None
    link = Session(Dialling("127.0.0.1:1", None, lambda: "token"), nobody, nobody)
    await cancel_while_it_fails(asyncio.create_task(link.run()), failing)


async def test_a_service_that_is_kept_up_ends_with_its_agent() -> None:
    failing = Failing(OSError("the disk is away"))
    await cancel_while_it_fails(asyncio.create_task(app._kept_up(failing.hold)), failing)
