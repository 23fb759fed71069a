"""kill -9 of the agent at each step of a job: found again, done once, its result delivered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snap_protos.snap.v1 import link_pb2 as pb
from tests.fakes import tls
from tests.fakes.control_plane import TOKEN, FakeControlPlane, Served, served
from tests.fakes.jobs import until
from tests.fakes.workshop import Workshop

START = pb.StartJob(
    job_id="J1",
    epoch=1,
    kind="checkpoint_and_push",
    checkpoint=pb.CheckpointSpec(
        namespace="default",
        pod_name="pod-1",
        leave_running=True,
        containers=[pb.ContainerTarget(checkpoint_id="CP1", container_name="redis")],
    ),
    pushes=[
        pb.PushSpec(
            checkpoint_id="CP1",
            registry=pb.RegistryAccess(host="registry.test", password="s3cret-password"),
            repository="snap/redis",
            tag="v1",
        )
    ],
)


@dataclass
class Process:
    """A running agent."""

    child: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """kill -9."""
        self.child.kill()
        await self.child.wait()

    async def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.child.wait(), 60)


@pytest.fixture(scope="module")
def certificates() -> tls.Certificates:
    return tls.make()


@contextlib.asynccontextmanager
async def an_agent_process(folder: Path, server: Served) -> AsyncIterator[Process]:
    """An agent with a workshop in ``folder``, killed at the end if it still runs."""
    (folder / "ca.pem").write_bytes(server.certificates.ca)
    (folder / "token").write_text(TOKEN)
    environment = {
        **os.environ,
        "SNAP_CONTROL_PLANE": server.target,
        "SNAP_CLUSTER_NAME": "lab",
        "SNAP_NODE_NAME": "node-1",
        "SNAP_AGENT_TOKEN_FILE": str(folder / "token"),
        "SNAP_CA_FILE": str(folder / "ca.pem"),
        "SNAP_AGENT_DATA_DIR": str(folder / "data"),
    }
    log = folder / "agent.log"
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fakes.agent_process", str(folder),
            env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield Process(child, log)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@pytest.mark.parametrize("step", ["checkpoint", "push"])
async def test_a_job_killed_in_a_step_is_finished_once(
    tmp_path: Path, certificates: tls.Certificates, step: str
) -> None:
    control, shop = FakeControlPlane(), Workshop(tmp_path)
    async with served(control, certificates) as server:
        shop.hold(step)
        async with an_agent_process(tmp_path, server) as first:
            await control.start(START)
            await until(lambda: f"{step} begun" in shop.notes())
            await first.kill()
        shop.release(step)
        async with an_agent_process(tmp_path, server):
            update = await control.result("J1")
    assert update.state == "completed"
    assert update.result.pushes[0].image == "registry.test/snap/redis:v1"
    assert shop.notes().count("checkpoint done CP1") == 1
    assert shop.notes().count("push done registry.test/snap/redis:v1") == 1


async def test_a_result_that_was_not_acknowledged_is_delivered_by_the_next_agent(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control, shop = FakeControlPlane(), Workshop(tmp_path)
    control.acknowledges = False
    async with served(control, certificates) as server:
        async with an_agent_process(tmp_path, server) as first:
            await control.start(START)
            await control.result("J1")
            await first.kill()
        async with an_agent_process(tmp_path, server):
            await until(lambda: len(control.results("J1")) == 2)
    assert shop.notes().count("checkpoint done CP1") == 1


async def test_a_job_killed_before_it_began_is_done(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control, shop = FakeControlPlane(), Workshop(tmp_path)
    async with served(control, certificates) as server:
        async with an_agent_process(tmp_path, server) as first:
            await until(lambda: control.sessions == 1)
            sequence = await control.start(START)
            await until(lambda: control.acknowledged >= sequence)
            await first.kill()  # anywhere between its acknowledgement and its end
        async with an_agent_process(tmp_path, server):
            assert (await control.result("J1")).state == "completed"
    assert shop.notes().count("checkpoint done CP1") == 1


async def test_sigterm_ends_an_idle_agent_cleanly(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server:
        async with an_agent_process(tmp_path, server) as process:
            await until(lambda: control.sessions == 1)
            assert await process.terminate() == 0
        assert "Traceback" not in process.log.read_text()


async def test_sigterm_leaves_a_dump_to_the_next_agent(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control, shop = FakeControlPlane(), Workshop(tmp_path)
    async with served(control, certificates) as server:
        shop.hold("checkpoint")
        async with an_agent_process(tmp_path, server) as first:
            await control.start(START)
            await until(lambda: "checkpoint begun" in shop.notes())
            assert await first.terminate() == 0
        assert "checkpoint thawed" not in shop.notes()
        shop.release("checkpoint")
        async with an_agent_process(tmp_path, server):
            assert (await control.result("J1")).state == "completed"
    assert shop.notes().count("checkpoint done CP1") == 1


async def test_a_second_agent_says_so_and_ends(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server:
        async with an_agent_process(tmp_path, server):
            await until(lambda: control.sessions == 1)
            async with an_agent_process(tmp_path, server) as second:
                assert await asyncio.wait_for(second.child.wait(), 60) != 0
        assert "Another agent works with" in second.log.read_text()


async def test_no_secret_is_logged_or_left_in_the_journal(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server:
        async with an_agent_process(tmp_path, server) as process:
            await control.start(START)
            await control.result("J1")
            await process.terminate()
        for file in [process.log, *(tmp_path / "data" / "jobs").iterdir()]:
            assert "s3cret-password" not in file.read_text()
            assert TOKEN not in file.read_text()
