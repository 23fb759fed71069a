"""A kubelet as far as checkpoints go: the same statuses and sentences, over TLS.

Source: pkg/kubelet/server of Kubernetes 1.37 (checkpoint; its authorizer answers before any route).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from tests.fakes import tls

Checkpoint = Callable[[str, str, str, int], Awaitable[str]]  # namespace, pod, container, timeout


async def no_runtime(namespace: str, pod: str, container: str, timeout_s: int) -> str:
    """What a kubelet's runtime says when it has none of it."""
    raise RuntimeError("rpc error: code = Unimplemented desc = method CheckpointContainer")


@dataclass
class Kubelet:
    """What it is set to do.

    Attributes:
        pods: containers by (namespace, pod).
        tokens: those it knows, and whether their owner may create nodes/checkpoint.
        checkpoint: its runtime: writes an archive and returns its path; RuntimeError fails.
    """

    pods: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    tokens: Mapping[str, bool] = field(default_factory=lambda: {"good": True, "weak": False})
    checkpoint: Checkpoint = no_runtime
    gate: bool = True
    asked: list[tuple[str, str, str, int]] = field(default_factory=list)
    url: str = ""
    ca_file: Path = Path("/nonexistent")

    async def _answer(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return web.Response(status=401, text="Unauthorized")
        if not self.tokens[token]:
            said = "Forbidden (user=a, verb=create, resource=nodes, subresource(s)=[checkpoint])"
            return web.Response(status=403, text=said)
        if not self.gate:
            return web.Response(status=404, text="404 page not found\n")
        return await self._taken(request)

    async def _taken(self, request: web.Request) -> web.Response:
        namespace, pod, container = (request.match_info[k] for k in ("ns", "pod", "container"))
        containers = self.pods.get((namespace, pod))
        if containers is None:
            return web.Response(status=404, text="pod does not exist")
        if container not in containers:
            return web.Response(status=404, text=f"container {container} does not exist")
        timeout = request.query.getall("timeout", ["0"])[-1]
        if not timeout.isdigit():
            return web.Response(status=404, text="cannot parse value of timeout parameter")
        self.asked.append((namespace, pod, container, int(timeout)))
        try:
            path = await self.checkpoint(namespace, pod, container, int(timeout))
        except RuntimeError as failure:
            said = f"checkpointing of {namespace}/{pod}/{container} failed ({failure})"
            return web.Response(status=500, text=said)
        return web.json_response({"items": [path]})


def archive_name(namespace: str, pod: str, container: str) -> str:
    """What the kubelet calls an archive that it asks for now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"checkpoint-{pod}_{namespace}-{container}-{now}.tar"


_K = TypeVar("_K", bound=Kubelet)


@asynccontextmanager
async def serving(
    kubelet: _K, folder: Path, name: str = "node1", address: str = "127.0.0.1"
) -> AsyncIterator[_K]:
    """``kubelet`` at a port of 127.0.0.1, its files in ``folder``; the certificate is for ``name`` and ``address``."""
    made = tls.make(address, name)
    for file, content in (("ca.crt", made.ca), ("leaf.crt", made.leaf), ("leaf.key", made.key)):
        (folder / file).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.crt", folder / "leaf.key")
    app = web.Application()
    app.router.add_post("/checkpoint/{ns}/{pod}/{container}", kubelet._answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        kubelet.url, kubelet.ca_file = f"https://127.0.0.1:{port}", folder / "ca.crt"
        yield kubelet
    finally:
        await runner.cleanup()
