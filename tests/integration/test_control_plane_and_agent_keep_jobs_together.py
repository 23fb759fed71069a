"""Both real programs over real TLS; either or both are killed at each step of a job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.agent_with_pods import ARCHIVE
from tests.fakes.api_process import ApiProcess, running, until
from tests.fakes.workshop import Workshop

PUSH = "/checkpoint/kubelet/checkpoint-and-push"
BODY = {"pod_name": "app", "namespace": "default"}


class AgentProcess:
    """The agent; start and kill it as you like."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self._folder / "agent.log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fakes.agent_with_pods", str(self._folder)),
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()


@contextlib.asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[ApiProcess, AgentProcess, Workshop]]:
    folder = tmp_path / "node"
    folder.mkdir()
    async with running(tmp_path / "data") as api:
        place = await api.set_up()
        (folder / "ca.pem").write_text(place.ca_pem)
        environment = os.environ | {
            "SNAP_CONTROL_PLANE": place.target,
            "SNAP_CLUSTER_NAME": place.cluster,
            "SNAP_NODE_NAME": place.node,
            "SNAP_AGENT_TOKEN": place.token,
            "SNAP_CA_FILE": str(folder / "ca.pem"),
            "SNAP_AGENT_DATA_DIR": str(folder / "data"),
        }
        agent = AgentProcess(folder, environment)
        await agent.start()
        try:
            yield api, agent, Workshop(folder)
        finally:
            await agent.kill()


async def begin(api: ApiProcess) -> str:
    """Start a job as soon as the agent has joined."""
    found: list[str] = []

    async def is_begun() -> bool:
        try:
            answer = await api.call("POST", f"{PUSH}?wait=false", BODY, 202)
        except AssertionError:
            return False
        found.append(answer["job_id"])
        return True

    await until(is_begun)
    return found[0]


async def ends_completed(api: ApiProcess, job_id: str) -> None:
    async def is_ended() -> bool:
        job = await api.call("GET", f"/jobs/{job_id}")
        assert job["status"] in {"queued", "running", "completed"}, job
        return bool(job["status"] == "completed")

    await until(is_ended)


async def test_a_job_goes_through_and_its_archive_comes_back(tmp_path: Path) -> None:
    async with both(tmp_path) as (api, _, shop):
        job_id = await begin(api)
        await ends_completed(api, job_id)
        (listed,) = (await api.call("GET", "/checkpoint/list"))["checkpoints"]
        assert listed["status"] == "completed"
        assert shop.notes()[-1].startswith("push done registry.test:5000/snap_images/dev-default-")
        status, _, body = await api.read(f"/checkpoint/download/app/{listed['filename']}")
        assert (status, body) == (200, ARCHIVE)
        part = {"Range": "bytes=5000000-"}
        status, _, rest = await api.read(f"/checkpoint/download/app/{listed['filename']}", **part)
        assert (status, rest) == (206, ARCHIVE[5_000_000:])
        nodes = await api.call("GET", "/cluster/status/dev")
        assert nodes["nodes"][0]["name"] == "node-1"


@pytest.mark.parametrize("killed", ["control plane", "agent", "both"])
@pytest.mark.parametrize("step", ["checkpoint", "push"])
async def test_killed_in_the_middle_of_a_step(tmp_path: Path, step: str, killed: str) -> None:
    async with both(tmp_path) as (api, agent, shop):
        shop.hold(step)
        job_id = await begin(api)
        await until(lambda: f"{step} begun" in shop.notes())
        if killed in ("control plane", "both"):
            await api.kill()
        if killed in ("agent", "both"):
            await agent.kill()
            await agent.start()
        shop.release(step)
        if killed in ("control plane", "both"):
            await api.start()
        await ends_completed(api, job_id)
        (listed,) = (await api.call("GET", "/checkpoint/list"))["checkpoints"]
        assert (listed["status"], bool(listed["image"])) == ("completed", True)
        assert shop.notes().count("checkpoint begun") == 1
