"""Following jobs: their progress over the WebSocket as bars, their end by ``GET /jobs/{id}``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deploy.devnode.rest import Rest

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
JOB_S: Final = 240.0
POLL_S: Final = 0.25


class JobFailed(RuntimeError):
    """A job did not complete; the message is the control plane's own sentence."""


async def follow(rest: Rest, jobs: Mapping[str, str], console: Console) -> dict[str, Any]:
    """Show bars for ``jobs`` (name → job id) until all have ended; each job's last state by name.

    Raises:
        JobFailed: one failed or took longer than 4 minutes.
    """
    columns = (
        TextColumn("  {task.fields[name]:8}"),
        BarColumn(28),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        bars = {job: progress.add_task("", total=100, name=name) for name, job in jobs.items()}
        async with asyncio.timeout(JOB_S):
            listening = asyncio.create_task(_listen(rest, bars, progress), name="progress")
            try:
                ended = {name: await _ended(rest, job) for name, job in jobs.items()}
            except TimeoutError as cause:
                raise JobFailed(f"the jobs did not end within {JOB_S:.0f} s") from cause
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening
        for job in bars.values():
            progress.update(job, completed=100, description="pushed")
    for name, state in ended.items():
        if state["status"] != "completed":
            error = state.get("error") or {}
            raise JobFailed(f"the job for {name} {state['status']}: {error.get('message', '')}")
    return ended


async def _ended(rest: Rest, job: str) -> Any:
    while True:
        state = await asyncio.to_thread(rest.get, f"/jobs/{job}")
        if state["status"] in ENDED:
            return state
        await asyncio.sleep(POLL_S)


async def _listen(rest: Rest, bars: Mapping[str, TaskID], progress: Progress) -> None:
    """Move the bars; the jobs' end does not depend on this."""
    headers = {"Authorization": f"Bearer {rest.token}"}
    with contextlib.suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{rest.url}/ws/progress", headers=headers) as socket,
        ):
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    _move(message.json(), bars, progress)


def _move(event: Mapping[str, Any], bars: Mapping[str, TaskID], progress: Progress) -> None:
    bar = bars.get(str(event.get("job_id")))
    done = event.get("progress")
    if bar is not None and isinstance(done, int | float):
        text = str(event.get("message") or event.get("task_name") or "")
        progress.update(bar, completed=done, description=text[:60])
