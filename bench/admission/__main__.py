"""``./dev bench admission``: 10,000 reviews over TLS; one line of JSON; 1 if a promise is not kept."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from bench.admission import reviews
from bench.admission.server import PATH

REVIEWS: Final = 10_000
P99_MS: Final = 5.0
CONNECTIONS: Final = 4
PER_CONNECTION: Final = 250  # then a new one, as an API server makes now and then


@dataclass(slots=True)
class Measured:
    """What came of it; handshakes are in the latency of the first review of a connection."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    patched: int = 0

    def quantile_ms(self, share: float) -> float:
        """The latency that ``share`` of all answers kept."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when the promise is kept."""
    parser = argparse.ArgumentParser(prog="dev bench admission", description=__doc__)
    parser.add_argument("--workloads", type=int, default=2_000, help="with a checkpoint [2000]")
    parser.add_argument("--nodes", type=int, default=200, help="of the cluster [200]")
    parser.add_argument("--reviews", type=int, default=REVIEWS, help=f"[{REVIEWS}]")
    args = parser.parse_args(argv)
    with _server(args.workloads, args.nodes) as (told, process):
        before_s = _cpu_s(process)
        measured = asyncio.run(_ask(told, args.workloads, args.reviews))
        cpu_s = _cpu_s(process) - before_s
    figures = {
        "reviews": len(measured.latencies_ms),
        "failed": measured.failed,
        "patched": measured.patched,
        "p50_ms": round(measured.quantile_ms(0.5), 2),
        "p99_ms": round(measured.quantile_ms(0.99), 2),
        "most_ms": round(max(measured.latencies_ms), 2),
        "cpu_ms": round(cpu_s * 1000 / len(measured.latencies_ms), 3),  # of the server, for each
        "load": round(os.getloadavg()[0], 1),  # others on this machine make waiting longer
    }
    print(json.dumps(figures))
    kept = not measured.failed and measured.patched and figures["p99_ms"] <= P99_MS
    return 0 if kept else 1


@contextlib.contextmanager
def _server(workloads: int, nodes: int) -> Iterator[tuple[dict[str, Any], psutil.Process]]:
    with tempfile.TemporaryDirectory(prefix="snap-bench-") as folder:
        argv = [sys.executable, "-m", "bench.admission.server", folder, str(workloads), str(nodes)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()), psutil.Process(process.pid)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


async def _ask(told: dict[str, Any], workloads: int, count: int) -> Measured:
    source = random.Random(1)  # noqa: S311 - the same reviews every time
    bodies = [reviews.body(number, workloads, source) for number in range(count)]
    context = ssl.create_default_context(cadata=told["ca"])
    measured = Measured()
    shares = [bodies[n::CONNECTIONS] for n in range(CONNECTIONS)]
    await asyncio.gather(*(_client(told["port"], context, one, measured) for one in shares))
    return measured


async def _client(
    port: int, context: ssl.SSLContext, bodies: Sequence[bytes], measured: Measured
) -> None:
    for start in range(0, len(bodies), PER_CONNECTION):
        began = time.perf_counter()
        streams = await asyncio.open_connection("localhost", port, ssl=context)
        for body in bodies[start : start + PER_CONNECTION]:
            await _review(streams, body, measured)
            measured.latencies_ms.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
        streams[1].close()


async def _review(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes, measured: Measured
) -> None:
    reader, writer = streams
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answered = (await reader.readuntil(b"\r\n\r\n")).lower()
    start = answered.index(b"content-length:") + 15
    content = await reader.readexactly(int(answered[start : answered.index(b"\r\n", start)]))
    if answered[9:12] != b"200" or not json.loads(content)["response"]["allowed"]:
        measured.failed += 1
    elif b'"patch"' in content:
        measured.patched += 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
