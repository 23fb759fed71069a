"""A fleet comes back at once: an agent that was let in is welcomed before the next one is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlite_utils import Database

from controlplane.clusters.tokens import JoinClaims
from controlplane.errors import SnapError
from controlplane.jobs.intake import Journal, Node, Reconciled
from controlplane.link.door import Door
from controlplane.link.fleet import Fleet
from controlplane.link.server import LinkServer
from controlplane.link.transfers import Transfers
from controlplane.store.database import Query, open_store
from controlplane.store.records import JobUpdate
from snap_protos.snap.v1 import link_pb2 as pb

AGENTS = 4


class Tokens:
    """Every token is good."""

    def is_of_cluster(self, token: str) -> bool:
        return False

    async def check(self, token: str, cluster: str = "") -> JoinClaims:
        return JoinClaims("dev", "token-1", is_expired=False)


class Jobs:
    """No node has any."""

    async def take(self, cluster: str, node: str, updates: Sequence[JobUpdate]) -> int:
        return 0

    def news_every_s(self) -> float:
        return 0.0

    async def reconcile(
        self, node: Node, hello: Journal, also: Callable[[Database], None]
    ) -> Reconciled:
        return Reconciled(0)

    async def reject(self, job_id: str, failure: SnapError, *, begun: bool = False) -> None:
        raise AssertionError(job_id)


class Trust:
    """Nothing to restore."""

    async def of_cluster(self, cluster: str) -> tuple[bytes, list[Any], list[Any]]:
        return b"", [], []


class Crowd:
    """The agents at the door, and what is done with them, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._said_hello = 0
        self._are_here = asyncio.Event()
        self.is_over = asyncio.Event()

    def came(self) -> None:
        self._said_hello += 1
        if self._said_hello == AGENTS:
            self._are_here.set()

    async def all_have_come(self) -> None:
        await self._are_here.wait()
        for _ in range(20):  # from their first word to the door
            await asyncio.sleep(0)


class Store:
    """The real store; it tells when an agent's key is looked up."""

    def __init__(self, real: Any, crowd: Crowd) -> None:
        self._real, self._crowd = real, crowd

    async def read(self, query: Query[Any]) -> Any:
        await self._crowd.all_have_come()
        self._crowd.events.append("let in")
        return await self._real.read(query)

    async def write(self, query: Query[Any]) -> Any:
        return await self._real.write(query)


class Stream:
    """One agent's side of its stream; it is also the server's context."""

    def __init__(self, number: int, crowd: Crowd) -> None:
        self.node, self._crowd = f"node-{number}", crowd
        self._nonce: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._key = Ed25519PrivateKey.generate()

    async def write(self, frame: pb.ControlFrame) -> None:
        if frame.HasField("challenge"):
            self._nonce.set_result(frame.challenge.nonce)
        elif frame.HasField("welcome"):
            self._crowd.events.append("welcomed")
            if self._crowd.events.count("welcomed") == AGENTS:
                self._crowd.is_over.set()

    async def said(self) -> AsyncIterator[pb.AgentFrame]:
        text = b"snap-join-v1\n" + await self._nonce + b"\ndev\n" + self.node.encode()
        self._crowd.came()
        yield pb.AgentFrame(
            hello=pb.Hello(
                cluster="dev",
                node=self.node,
                public_key=self._key.public_key().public_bytes_raw(),
                signature=self._key.sign(text),
            )
        )
        await self._crowd.is_over.wait()


async def test_a_place_inside_is_kept_from_admission_to_welcome(tmp_path: Path) -> None:
    crowd, real = Crowd(), open_store(tmp_path)
    fleet = Fleet(None, Transfers())  # type: ignore[arg-type]  # no job is started
    parts: dict[str, Any] = {"store": Store(real, crowd), "trust": Trust(), "uploads": None}
    server = LinkServer(
        tokens=Tokens(),
        jobs=Jobs(),
        fleet=fleet,
        transfers=Transfers(),
        door=Door(at_once=1),
        **parts,
    )
    streams: list[Any] = [Stream(number, crowd) for number in range(AGENTS)]
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(server.connect("token", stream.said(), stream))
    finally:
        real.close()
    assert crowd.events == ["let in", "welcomed"] * AGENTS
