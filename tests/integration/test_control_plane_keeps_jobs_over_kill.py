"""kill -9 of the control plane at each step of a job: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.api_process import ApiProcess, running, until
from tests.fakes.node_agent import FakeAgent, pod, result_of

CHECKPOINT = "/checkpoint/kubelet/checkpoint?wait=false"
PUSH = "/checkpoint/kubelet/checkpoint-and-push?wait=false"
BODY = {"pod_name": "app", "namespace": "default"}


async def agent_of(api: ApiProcess) -> FakeAgent:
    return FakeAgent(await api.set_up(), pods={("default", "app"): pod()})


async def begin(api: ApiProcess, path: str = CHECKPOINT) -> str:
    answer = await api.call("POST", path, BODY, 202)
    return str(answer["job_id"])


async def state_of(api: ApiProcess, job_id: str) -> str:
    return str((await api.call("GET", f"/jobs/{job_id}"))["status"])


async def ends_completed(api: ApiProcess, job_id: str) -> None:
    async def is_completed() -> bool:
        return await state_of(api, job_id) == "completed"

    await until(is_completed)


async def restart(api: ApiProcess) -> None:
    await api.kill()
    await api.start()


async def test_killed_after_the_answer_before_the_agent_took_it(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.acknowledges = False
        async with agent.join():
            job_id = await begin(api)
            await until(lambda: job_id in agent.journal)
            agent.journal.clear()  # it came, but never reached the disk
            await restart(api)
        agent.acknowledges = True
        assert await state_of(api, job_id) == "queued"
        async with agent.join():
            await until(lambda: job_id in agent.journal)
            assert agent.journal[job_id].start.epoch == 2
            await agent.complete(job_id)
            await ends_completed(api, job_id)


async def test_killed_after_the_agent_took_it(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            job_id = await begin(api)
            await until(lambda: job_id in agent.journal)
            await restart(api)
        async with agent.join():
            await agent.complete(job_id)
            await ends_completed(api, job_id)
        assert agent.journal[job_id].times_started == 1


async def test_killed_while_it_runs_and_ended_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            job_id = await begin(api)
            await until(lambda: job_id in agent.journal)
            news = await agent.report(job_id, "running", progress=40.0, message="dumping")
            await until(lambda: agent.stored >= news.sequence)
            await api.kill()
        agent.journal[job_id].state = "completed"
        await api.start()
        assert await state_of(api, job_id) == "running"
        async with agent.join():
            await agent.complete(job_id)
            await ends_completed(api, job_id)
        assert agent.journal[job_id].times_started == 1


async def test_killed_before_the_result_was_acknowledged(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            job_id = await begin(api, PUSH)
            await until(lambda: job_id in agent.journal)
            result = result_of(agent.journal[job_id].start)
            news = await agent.report(job_id, "completed", result=result)
            await api.kill()  # stored or not: nobody knows
        await api.start()
        async with agent.join():
            await agent.say(news)
            again = await agent.report(job_id, "completed", result=result)
            await until(lambda: agent.stored >= again.sequence)
        await ends_completed(api, job_id)
        listed = await api.call("GET", "/checkpoint/list")
        assert [c["status"] for c in listed["checkpoints"]] == ["completed"]
        assert listed["checkpoints"][0]["image"]


async def test_grants_and_passwords_come_with_the_welcome_after_a_kill(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        async with agent.join():
            job_id = await begin(api, PUSH)
            await ends_completed(api, job_id)
            await until(lambda: bool(agent.grants))
        await restart(api)
        async with agent.join():
            welcome = agent.welcomes[-1]
            assert len(welcome.grants.grants) == 1
            assert welcome.grant_key == agent.welcomes[0].grant_key
            assert {r.password for r in welcome.credentials.registries} == {"push-secret"}
            assert welcome.up_to_sequence == agent.sequence


async def test_a_waiting_request_gets_its_job_id_at_sigterm(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            waiting = asyncio.create_task(
                api.call("POST", "/checkpoint/kubelet/checkpoint", BODY, 202)
            )
            await until(lambda: bool(agent.journal))
            async with asyncio.timeout(60):
                assert await api.stop() == 0
            answer = await waiting
        await api.start()
        assert await state_of(api, answer["job_id"]) == "queued"


async def test_a_client_that_hangs_up_does_not_cancel_its_job(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            waiting = asyncio.create_task(api.call("POST", "/checkpoint/kubelet/checkpoint", BODY))
            await until(lambda: bool(agent.journal))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            (job_id,) = agent.journal
            await agent.complete(job_id)
            await ends_completed(api, job_id)
        assert agent.cancels == []


async def test_a_repeated_request_returns_the_first_job_also_after_a_kill(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            first = await api.call("POST", CHECKPOINT, BODY, 202, Idempotency_Key="once")
            await restart(api)
            again = await api.call("POST", CHECKPOINT, BODY, 202, Idempotency_Key="once")
            assert again["job_id"] == first["job_id"]
        async with agent.join():
            other = await api.call(
                "POST", CHECKPOINT, BODY | {"strict": True}, 202, Idempotency_Key="once"
            )
            assert other["job_id"] != first["job_id"]


@pytest.mark.parametrize("seen", [False, True], ids=["never joined", "left"])
async def test_an_absent_agent_is_503_and_leaves_no_row(tmp_path: Path, *, seen: bool) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        if seen:
            async with agent.join():
                await agent.heartbeat()
        body: dict[str, Any] = BODY | {"node_name": "node-1"}

        async def is_away() -> bool:
            try:
                await api.call("POST", CHECKPOINT, body, 503 if seen else 404)
            except AssertionError:
                return False
            return True

        await until(is_away)
        answer = await api.call("POST", CHECKPOINT, body, 503 if seen else 404)
        assert answer["code"] == ("AGENT_UNAVAILABLE" if seen else "NODE_NOT_FOUND")
        assert (await api.call("GET", "/jobs"))["jobs"] == []
        assert (await api.call("GET", "/checkpoint/list"))["checkpoints"] == []


async def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data"):
        second = ApiProcess(tmp_path / "data")
        second._client = aiohttp.ClientSession()
        try:
            with pytest.raises(AssertionError, match="in use by another snap-api"):
                await second.start()
        finally:
            await second._client.close()
