"""The control plane ends and starts again: how long until the whole fleet is back, and what users wait meanwhile."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

from bench.api.load import Measured
from bench.api.servers import Served
from bench.fleet import probing, servers
from bench.fleet.figures import Figure, Goal, Goals
from bench.fleet.servers import Helper, Home

ENDS: Final[Mapping[signal.Signals, tuple[Goal, Goal]]] = {
    signal.SIGTERM: (Goals.RETURN, Goals.REST),
    signal.SIGKILL: (Goals.RETURN_KILLED, Goals.REST_KILLED),
}


def restarts(
    agents: int, running: ExitStack, known: tuple[Served, Home, Helper], say: Callable[[str], None]
) -> Iterator[Figure]:
    """End the control plane in each way of ``ENDS`` and start it; its fleet of ``agents`` comes back.

    Args:
        running: what ends the control plane that runs; the next one is put into it.
    """
    served, home, crew = known
    for end, (back_goal, rest_goal) in ENDS.items():
        served.process.send_signal(end)
        running.close()
        began = time.monotonic()
        served = running.enter_context(servers.control_plane(home))
        answers, last = asyncio.run(_return(served, crew, began))
        is_whole = last["joined"] == agents
        notes = {
            "joined": last["joined"],
            "agents": agents,
            "half_s": last["half_at"] - began,
            "failed_tries": last["failures"],
        }
        took_s = last["last_at"] - began if is_whole else float("inf")
        say(f"  after {end.name} {last['joined']} back after {took_s:.1f} s, {notes}")
        say(f"  failed tries: {crew.ask('failures')}")
        yield back_goal.figure(took_s, notes)
        slowest = {
            "asked": len(answers.latencies_ms),
            "failed": answers.failed,
            "p50_ms": answers.quantile_ms(0.5),
            "p99_ms": answers.quantile_ms(0.99),
        }
        say(f"  REST meanwhile: slowest {answers.quantile_ms(1.0):.0f} ms, {slowest}")
        yield rest_goal.figure(answers.quantile_ms(1.0) / 1000, slowest)


async def _return(served: Served, crew: Helper, since: float) -> tuple[Measured, Mapping[str, Any]]:
    over = asyncio.Event()
    asking = asyncio.create_task(probing.probe(served, over))
    last = await asyncio.to_thread(crew.ask, f"rejoined {since}")
    over.set()
    return await asking, last
