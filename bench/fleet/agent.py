"""One simulated agent: the real protocol, the real agent's back-off; its node and its jobs are made up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.link.backoff import Backoff
from agent.link.conversation import HANDSHAKE_S
from agent.link.pacing import NEWS_EVERY_S, Pace
from agent.link.session import OPTIONS, STABLE_S
from bench.fleet import plan
from bench.fleet.echo import METHOD
from bench.fleet.plan import Dialling
from snap_protos.snap.v1 import link_pb2 as pb
from snap_protos.snap.v1.link_pb2_grpc import AgentLinkStub

_FACTS: Final = pb.NodeFacts(
    os="Debian GNU/Linux 12",
    kernel="6.18.0",
    architecture="x86_64",
    runtime="containerd",
    runtime_version="2.1.9",
    oci_runtime="runc",
    oci_runtime_version="1.3.6",
    criu_version="4.2.1",
    kubelet_version="v1.37.2",
    cgroup_version="v2",
    engines=["runc", "kubelet", "cri"],
    restore_drivers=["runtime"],
    criu_features=["mem_dirty_track", "uffd-noncoop"],
    cpu_features=["avx", "avx2", "sse4_2"],
    runc_version="1.3.6",
)
_OVER: Final = (grpc.RpcError, asyncio.InvalidStateError, asyncio.CancelledError)


@dataclass
class SimulatedAgent:
    """One node of the fleet.

    Attributes:
        jobs_each: how many of its jobs it says it has.
        joined_at: monotonic seconds of its last welcome; 0.0 while it has no session.
        acknowledged: sequence up to which its news are stored.
        failures: monotonic seconds and reason of each try that failed.
    """

    number: int
    dialling: Dialling
    jobs_each: int
    joined_at: float = 0.0
    sequence: int = 0
    acknowledged: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    _key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _call: Any = None
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _pace: Pace = field(default_factory=Pace)
    _unsaid: Any = None  # the newest report that was not sent yet
    _is_telling: bool = False  # or waits until it may again
    _going_on: asyncio.Task[None] | None = None

    async def run(self, credentials: grpc.ChannelCredentials, gate: asyncio.Semaphore) -> None:
        """Hold one session after the other until cancelled; ``gate`` spreads the very first ones."""
        backoff = Backoff()
        first = gate
        while True:
            began = time.monotonic()
            async with grpc.aio.secure_channel(
                self.dialling.target, credentials, options=OPTIONS
            ) as channel:
                await self._session(channel, first)
            first = asyncio.Semaphore()
            if time.monotonic() - began >= STABLE_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _session(self, channel: grpc.aio.Channel, gate: asyncio.Semaphore) -> None:
        try:
            async with gate:
                async with asyncio.timeout(HANDSHAKE_S):
                    call = await (
                        self._echo(channel) if self.dialling.echo else self._join(channel)
                    )
                self._call, self.joined_at = call, time.monotonic()
                await self.heartbeat()
            while (heard := await call.read()) is not grpc.aio.EOF:
                if not self.dialling.echo:
                    await self._hear(heard)
        except TimeoutError:
            self._fail("no welcome in time")
        except _OVER as cause:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if isinstance(cause, grpc.aio.AioRpcError):
                self._fail(f"{cause.code().name}: {str(cause.details())[:80]}")
        finally:
            self._call, self.joined_at = None, 0.0

    def _fail(self, reason: str) -> None:
        self.failures.append((time.monotonic(), reason))

    async def _hear(self, frame: Any) -> None:
        """News that are stored, and the question which pods there are: none."""
        if frame.HasField("ack"):
            self.acknowledged = frame.ack.up_to_sequence
            self._pace.acknowledged(self.acknowledged, frame.ack.news_every_s)
        elif frame.HasField("find_pod"):
            answer = pb.PodFound(request_id=frame.find_pod.request_id)
            await self._say(pb.AgentFrame(pod_found=answer))

    async def _join(self, channel: grpc.aio.Channel) -> Any:
        stub: Any = AgentLinkStub(channel)
        call = stub.Connect(metadata=(("authorization", f"Bearer {self.dialling.token}"),))
        challenge = await self._first(call)
        text = b"snap-join-v1\n%s\n%s\n%s" % (
            challenge.challenge.nonce,
            plan.CLUSTER.encode(),
            plan.node(self.number).encode(),
        )
        jobs = [plan.job(self.number, which) for which in range(self.jobs_each)]
        hello = pb.Hello(
            cluster=plan.CLUSTER,
            node=plan.node(self.number),
            agent_version="bench",
            boot_id=f"boot-of-{self.number}",
            facts=_FACTS,
            public_key=self._key.public_key().public_bytes_raw(),
            signature=self._key.sign(text),
            last_sequence=self.sequence,
            jobs=[pb.JobBrief(job_id=one, epoch=1, state="running") for one in jobs],
        )
        await call.write(pb.AgentFrame(hello=hello))
        self.acknowledged = (await self._first(call)).welcome.up_to_sequence
        self._pace = Pace()
        return call

    async def _echo(self, channel: grpc.aio.Channel) -> Any:
        call: Any = channel.stream_stream(METHOD)()
        await call.write(_status().SerializeToString())
        await self._first(call)
        return call

    async def _first(self, call: Any) -> Any:
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(
                await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
            )
        return answer

    async def heartbeat(self) -> None:
        """Say how the node is; nothing while there is no session."""
        frame = _status()
        await self._say(frame.SerializeToString() if self.dialling.echo else frame)

    async def report(self, jobs: int, step: int, steps: int) -> None:
        """One frame with news of the first ``jobs`` jobs; ``message`` says when this was.

        Where the control plane does not keep up, it waits as the real agent's news do, and a newer one goes instead.
        """
        self._unsaid = jobs, step, steps, time.monotonic()
        if not self._is_telling:
            await self._tell()

    async def _tell(self) -> None:
        if self._unsaid is None:
            self._is_telling = False
            return
        self._is_telling = True
        (jobs, step, steps, at), self._unsaid = self._unsaid, None
        updates = []
        for which in range(jobs):
            self.sequence += 1
            updates.append(
                pb.JobUpdate(
                    job_id=plan.job(self.number, which),
                    epoch=1,
                    sequence=self.sequence,
                    state="running",
                    progress=100.0 * step / steps,
                    message=f"{at:.6f} {step}",
                    task_name="Pushing layers",
                    bytes_done=step << 20,
                    bytes_total=steps << 20,
                )
            )
        await self._say(pb.AgentFrame(updates=pb.JobUpdates(updates=updates)))
        self._pace.sent(self.sequence)
        wait_s = self._pace.every_s()
        self._is_telling = wait_s > NEWS_EVERY_S or self._unsaid is not None
        if self._is_telling:
            asyncio.get_running_loop().call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        self._going_on = asyncio.create_task(self._tell())

    async def _say(self, frame: Any) -> None:
        async with self._writing:  # gRPC wants one at a time
            call = self._call
            if call is not None:
                with contextlib.suppress(*_OVER[:2]):
                    await call.write(frame)


def _status() -> Any:
    return pb.AgentFrame(
        status=pb.NodeStatus(
            taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            ready=True,
            disk_total_bytes=500 << 30,
            disk_free_bytes=(300 << 30) + time.monotonic_ns() % (1 << 30),
            memory_total_bytes=64 << 30,
            memory_available_bytes=(32 << 30) + time.monotonic_ns() % (1 << 30),
            agent_memory_bytes=60 << 20,
            checkpoints=12,
            cpu_percent=0.4,
        )
    )
