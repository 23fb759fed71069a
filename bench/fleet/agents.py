"""A process full of simulated agents, told by lines on stdin, answering by lines of JSON on stdout.

First line: a ``Crew``. Then ``join``, ``rejoined SINCE``, ``failures``, ``report AGENTS JOBS SECONDS``.
Agents send a status each 10 s from their join on, spread evenly, and come back by themselves when they are cut off.
"""

from __future__ import annotations

import asyncio
import collections
import resource
import sys
import time
from typing import Any, Final

import grpc
import msgspec

from agent.link.pacing import NEWS_EVERY_S
from bench.fleet import plan
from bench.fleet.agent import SimulatedAgent
from bench.fleet.plan import Dialling
from controlplane.garbage import SetAside

AT_ONCE: Final = 64  # first joins under way together
_TICK_S: Final = 0.005
_JOIN_S: Final = 240.0


class Crew(msgspec.Struct, frozen=True):
    """Who is simulated: ``jobs[n]`` jobs on the agent ``n``."""

    dialling: Dialling
    jobs: list[int]


async def _lead() -> None:
    commands = await _commands()
    crew = msgspec.json.decode(await commands.readline(), type=Crew)
    agents = [SimulatedAgent(n, crew.dialling, jobs) for n, jobs in enumerate(crew.jobs)]
    credentials = grpc.ssl_channel_credentials(crew.dialling.ca_pem.encode())
    gate = asyncio.Semaphore(AT_ONCE)
    tasks: list[asyncio.Task[None]] = []
    while words := (await commands.readline()).split():
        match words:
            case [b"join"]:
                tasks += [asyncio.create_task(agent.run(credentials, gate)) for agent in agents]
                tasks.append(asyncio.create_task(_heartbeats(agents)))
                await _all_joined(agents, 0.0)
                _answer({"joined": len(agents)})
            case [b"rejoined", since]:
                _answer(await _rejoined(agents, float(since)))
            case [b"failures"]:
                _answer({"failures": collections.Counter(f for a in agents for _, f in a.failures)})
            case [b"report", count, jobs, seconds]:
                _answer(await _report(agents[: int(count)], int(jobs), float(seconds)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


def _answer(content: dict[str, Any]) -> None:
    print(msgspec.json.encode(content).decode(), flush=True)


async def _all_joined(agents: list[SimulatedAgent], since: float) -> float:
    """Wait until every agent has a session that began after ``since``; when the last one joined."""
    deadline = time.monotonic() + _JOIN_S
    while time.monotonic() < deadline and any(a.joined_at <= since for a in agents):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return max(agent.joined_at for agent in agents)


async def _rejoined(agents: list[SimulatedAgent], since: float) -> dict[str, Any]:
    """Who came back, when the last and the middle one did, and how many tries failed on the way."""
    last = await _all_joined(agents, since)
    joined = sorted(agent.joined_at for agent in agents if agent.joined_at > since)
    return {
        "last_at": last,
        "half_at": joined[len(joined) // 2] if joined else last,
        "joined": len(joined),
        "failures": sum(at > since for agent in agents for at, _ in agent.failures),
    }


async def _heartbeats(agents: list[SimulatedAgent]) -> None:
    """Every agent's status each 10 s, at its own moment."""
    done, began = 0, time.monotonic()
    while True:
        await asyncio.sleep(_TICK_S)
        due = int((time.monotonic() - began) / plan.HEARTBEAT_S * len(agents))
        await asyncio.gather(*(agents[n % len(agents)].heartbeat() for n in range(done, due)))
        done = due


async def _report(agents: list[SimulatedAgent], jobs: int, seconds: float) -> dict[str, Any]:
    """News of ``jobs`` jobs of each agent at the real agent's pace; what was sent, and how late at worst."""
    steps = round(seconds / NEWS_EVERY_S)
    total, sent, began, late_s = steps * len(agents), 0, time.monotonic(), 0.0
    cpu = _cpu_s()
    under_way: set[asyncio.Task[None]] = set()
    while sent < total:
        due = min(total, int((time.monotonic() - began) / NEWS_EVERY_S * len(agents)))
        if due > sent:
            late_s = max(late_s, time.monotonic() - began - sent / len(agents) * NEWS_EVERY_S)
        for number in range(sent, due):
            step, which = divmod(number, len(agents))
            task = asyncio.create_task(agents[which].report(jobs, step + 1, steps))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        sent = due
        await asyncio.sleep(_TICK_S)
    took_s = time.monotonic() - began
    await asyncio.gather(*under_way)
    return {
        "updates": sent * jobs,
        "steps": steps,
        "seconds": took_s,
        "late_ms": late_s * 1000,
        "cpu_percent": (_cpu_s() - cpu) / took_s * 100,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    plan.keep_off_measured_core()
    SetAside().begin()  # no agent stands still for a look at thousands of others
    asyncio.run(_lead())
