"""One run, step by step: the bare streams, the fleet at rest, its news, its return after a restart."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.api import servers as api_servers
from bench.api.servers import Served
from bench.fleet import filling, plan, returning, servers
from bench.fleet.agents import Crew
from bench.fleet.figures import Figure, Goals
from bench.fleet.plan import Dialling, Reading, Shape
from bench.fleet.servers import Helper, Home
from controlplane.store.database import FILE
from deploy.devnode.ports import free_port

_STORED_S: Final = 10.0
_REPORT_S: Final = 20.0
REST, NEWS, RETURN = "rest", "news", "return"
PARTS: Final = frozenset({REST, NEWS, RETURN})
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """How large a run is.

    Attributes:
        seconds: that processor time at rest is measured over; news are sent for a third of it.
        shapes: who reports, one after the other.
        readers: WebSockets that see their own user's jobs, besides the one that sees all.
        parts: what is measured; the rest is left out.
    """

    agents: int
    seconds: float
    shapes: Sequence[Shape]
    readers: int
    settle_s: float = 5.0
    parts: frozenset[str] = PARTS

    def jobs(self) -> list[int]:
        """How many jobs each agent has."""
        return [
            max((s.jobs_each for s in self.shapes if number < s.agents), default=0)
            for number in range(self.agents)
        ]


def conduct(run: Run, say: Say) -> Iterator[Figure]:
    """Measure; each figure as soon as it is there.

    Raises:
        RuntimeError: a process ended, or not everything that was sent is stored.
    """
    plan.open_files(run.agents)
    plan.keep_off_measured_core()
    with tempfile.TemporaryDirectory(prefix="snap-fleet-") as folder:
        bare_bytes = _bare(run, Path(folder) / "tls", say) if REST in run.parts else 0.0
        home = Home(Path(folder) / "data", free_port(), free_port())
        with servers.control_plane(home) as served:
            token, ca_pem = filling.set_up(served, run.readers)
        filling.fill(home.data_dir, run.jobs(), run.readers)
        dialling = Dialling(f"127.0.0.1:{home.grpc_port}", ca_pem, token)
        with ExitStack() as first:
            served = first.enter_context(servers.control_plane(home))
            before = _memory(served.process)
            with servers.helper("bench.fleet.agents", Crew(dialling, run.jobs())) as crew:
                joined_s = _join(crew, run, say)
                if REST in run.parts:
                    yield from _at_rest(run, served, (before, bare_bytes, joined_s), say)
                for shape in run.shapes if NEWS in run.parts else ():
                    yield _news(run, shape, (served, home, crew), say)
                if RETURN in run.parts:
                    known = served, home, crew
                    yield from returning.restarts(run.agents, first, known, say)


def _bare(run: Run, folder: Path, say: Say) -> float:
    """Bytes of a bare server for each stream."""
    with servers.echo(folder) as (process, target, ca_pem):
        crew_of = Crew(Dialling(target, ca_pem, echo=True), [0] * run.agents)
        with servers.helper("bench.fleet.agents", crew_of) as crew:
            time.sleep(1.0)
            before = _memory(process)
            _join(crew, run, say)
            time.sleep(run.settle_s)
            return (_memory(process) - before) / run.agents


def _join(crew: Helper, run: Run, say: Say) -> float:
    began = time.monotonic()
    crew.ask("join")
    took_s = time.monotonic() - began
    say(f"  {run.agents} joined in {took_s:.1f} s, failed tries: {crew.ask('failures')}")
    return took_s


def _at_rest(
    run: Run, served: Served, known: tuple[int, float, float], say: Say
) -> Iterator[Figure]:
    before_bytes, bare_bytes, joined_s = known
    time.sleep(run.settle_s)
    ours_bytes = (_memory(served.process) - before_bytes) / run.agents
    notes = {"ours_kib": ours_bytes / 1024, "bare_kib": bare_bytes / 1024, "joined_s": joined_s}
    began, used = time.monotonic(), served.cpu_s()
    time.sleep(run.seconds)
    percent = (served.cpu_s() - used) / (time.monotonic() - began) * 100
    say(f"  at rest {percent:.1f} % of a core, {notes}")
    yield Goals.AT_REST.figure(percent, {"agents": run.agents})
    yield Goals.MEMORY.figure((ours_bytes - bare_bytes) / 1024, notes)


def _news(run: Run, shape: Shape, known: tuple[Served, Home, Helper], say: Say) -> Figure:
    served, home, crew = known
    tokens = [served.token]
    tokens += [api_servers.log_in(home.http_port, f"user-{n}") for n in range(run.readers)]
    with servers.helper("bench.fleet.readers", Reading(home.http_port, tokens)) as readers:
        readers.answer()
        readers.ask("begin")
        used = served.cpu_s()
        seconds = min(run.seconds, _REPORT_S)
        sent = crew.ask(f"report {shape.agents} {shape.jobs_each} {seconds}")
        percent = (served.cpu_s() - used) / sent["seconds"] * 100
        _wait_stored(home, shape, sent["steps"])
        seen = _seen(readers, sent["updates"])
        used_s = served.cpu_s() - used
    notes = {
        "updates_per_s": sent["updates"] / sent["seconds"],
        "agents": shape.agents,
        "jobs_each": shape.jobs_each,
        "p50_ms": seen["all"].get("p50_ms", 0.0),
        "own_p99_ms": seen["own"].get("p99_ms", 0.0),
        "max_ms": seen["all"].get("max_ms", 0.0),
        "overtaken": seen["all"]["overtaken"],
        "events": seen["all"]["events"],
        "own_events": seen["own"]["events"],
        "core_percent": percent,
        "cpu_us_per_update": used_s / sent["updates"] * 1e6,
        "agents_late_ms": sent["late_ms"],
        "agents_core_percent": sent["cpu_percent"],
    }
    say(f"  {notes}")
    if seen["open"] != len(tokens) or seen["all"]["updates"] < sent["updates"]:
        told = f"{seen['open']} of {len(tokens)} are open, {seen['all']['updates']} updates seen"
        raise RuntimeError(f"A WebSocket was dropped or missed news: {told} of {sent['updates']}.")
    return Goals.NEWS.figure(seen["all"]["p99_ms"], notes)


def _seen(readers: Helper, updates: int) -> Mapping[str, Any]:
    """What was seen, once the last news are: they are stored a moment before they are told."""
    deadline = time.monotonic() + _STORED_S
    while True:
        seen = readers.ask("end")
        if seen["all"]["updates"] >= updates or time.monotonic() > deadline:
            return seen
        time.sleep(0.1)


def _wait_stored(home: Home, shape: Shape, steps: int) -> None:
    """Wait until the last news of every job are in the database's file."""
    jobs = [plan.job(n, which) for n in range(shape.agents) for which in range(shape.jobs_each)]
    wanted = len(jobs)
    uri = f"file:{home.data_dir / FILE}?mode=ro"
    deadline = time.monotonic() + _STORED_S
    while True:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            query = (
                "SELECT count(*) FROM jobs WHERE message LIKE ? "
                "AND id IN (SELECT value FROM json_each(?))"
            )
            stored = database.execute(query, [f"% {steps}", json.dumps(jobs)]).fetchone()[0]
        if stored == wanted:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"Of {wanted} jobs {stored} have their last news stored.")
        time.sleep(0.1)


def _memory(process: psutil.Process) -> int:
    return int(process.memory_full_info().uss)
