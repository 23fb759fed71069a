"""The agent's side of the link against a real gRPC server with TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent import errors
from agent.formats.jobs import JobId, JobResult, JobState, JobUpdate
from agent.link import identity
from agent.link.conversation import Member, Rooms
from agent.link.session import Dialling, Session
from agent.node.facts import (
    FoundPod,
    NodeFacts,
    NodeStatus,
    PodContainer,
    Readiness,
    Reason,
    Vitals,
)
from agent.restore.outcome import Action, Outcome, OutcomeLog
from agent.restore.telling import OutcomeNews
from snap_protos.snap.v1 import link_pb2 as pb
from tests.fakes import tls
from tests.fakes.control_plane import TOKEN, FakeControlPlane, Served, served
from tests.fakes.jobs import Agent, an_agent, until
from tests.fakes.workshop import FakeArchives, FakeTrust

ARCHIVE = bytes(range(256)) * 40


class FakeNode:
    """A node with one pod."""

    def __init__(self) -> None:
        self.known = NodeFacts(kernel="6.1", engines=("runc",))
        self.news = asyncio.Event()

    def facts(self) -> NodeFacts:
        return self.known

    async def status(self, *, with_facts: bool) -> NodeStatus:
        reason = Reason("HandlerMissing", "No handler.", "Add it.", blocking=False)
        readiness = Readiness(self.known, (reason,))
        self.news.clear()
        vitals = Vitals(100, 50, 1000, 500, 10, 1.5)
        return NodeStatus("2026-01-01T00:00:00Z", readiness, vitals, 0, 0, 3, with_facts)

    async def wait_changed(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self.news.wait()

    async def find_pod(self, namespace: str, pod_name: str) -> FoundPod | None:
        if pod_name == "broken":
            raise errors.Retryable("The container runtime does not answer; is it running?")
        if (namespace, pod_name) != ("default", "pod-1"):
            return None
        container = PodContainer("redis", "c0ffee", "running", "redis:7", "redis@sha256:0")
        return FoundPod("uid-1", pod_name, namespace, True, (("app", "redis"),), (container,))

    async def pods(self) -> tuple[FoundPod, ...]:
        pod = await self.find_pod("default", "pod-1")
        return (pod,) if pod else ()


@dataclass
class Linked:
    """An agent with a link, and the control plane that it dials."""

    agent: Agent
    control: FakeControlPlane
    server: Served
    node: FakeNode
    trust: FakeTrust
    session: Session
    archives: FakeArchives
    restores: OutcomeLog
    outcomes: OutcomeNews

    def restored(self, number: int) -> None:
        """A container was restored."""
        outcome = Outcome(action=Action.RESTORED, container_id=str(number), at="2026-01-01", pid=7)
        self.restores.add(outcome)
        self.outcomes.on_outcome(outcome)


@pytest.fixture(scope="module")
def certificates() -> tls.Certificates:
    return tls.make()


@contextlib.asynccontextmanager
async def linked(
    folder: Path, server: Served, *, token: str = TOKEN, dial: Dialling | None = None
) -> AsyncIterator[Linked]:
    """An agent over ``folder`` that dials ``server`` for the block."""
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(server.certificates.ca)
    node, trust = FakeNode(), FakeTrust()
    async with an_agent(folder) as agent:
        archives = FakeArchives({"CP1": ARCHIVE})
        restores = OutcomeLog(folder / "restores.log")
        outcomes = OutcomeNews(restores)
        rooms = Rooms(agent.runner, agent.outbox, node, archives, trust, outcomes)
        member = Member("lab", "node-1", "boot", identity.load(folder / "identity"))
        dialling = dial or Dialling(server.target, ca_file, lambda: token)
        session = Session(dialling, member, rooms)
        running = asyncio.create_task(session.run(), name="link")
        try:
            yield Linked(
                *(agent, server.plane, server, node, trust, session, archives), restores, outcomes
            )
        finally:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled() and (failure := running.exception()):
                raise failure


def a_start(job_id: str = "J1", kind: str = "checkpoint_and_push", epoch: int = 1) -> pb.StartJob:
    """A job about one container, as the control plane says it."""
    return pb.StartJob(
        job_id=job_id,
        epoch=epoch,
        kind=kind,
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


async def test_a_join_proves_the_key_and_brings_grants(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    async with served(FakeControlPlane(), certificates) as server, linked(tmp_path, server) as it:
        await until(lambda: it.session.is_up)
        hello = it.control.hellos[0]
        assert (hello.cluster, hello.node, hello.facts.kernel) == ("lab", "node-1", "6.1")
        assert it.trust.key == b"k" * 32
        assert it.trust.grant_news[0].replace
        assert it.trust.access_news[0].registries[0].host == "registry.test"


async def test_heartbeats_carry_facts_only_when_they_changed(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    async with served(FakeControlPlane(), certificates) as server, linked(tmp_path, server) as it:
        await until(lambda: len(it.control.statuses) >= 2)
        first = it.control.statuses[0]
        assert first.ready
        assert not first.HasField("facts")
        assert first.reasons[0].remedy == "Add it."
        it.node.known = replace(it.node.known, kernel="6.2")
        await until(lambda: any(s.HasField("facts") for s in it.control.statuses))
        told = [s.facts.kernel for s in it.control.statuses if s.HasField("facts")]
        seen = len(it.control.statuses)
        await until(lambda: len(it.control.statuses) > seen)
        assert told == ["6.2"]


async def test_what_a_node_can_do_is_told_as_soon_as_it_changes(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    control.heartbeat_s = 3600
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        await until(lambda: len(control.statuses) == 1)
        it.node.known = replace(it.node.known, kernel="6.2")
        it.node.news.set()
        await until(lambda: len(control.statuses) == 2)
        assert control.statuses[1].facts.kernel == "6.2"


async def test_a_job_is_acknowledged_done_and_its_result_delivered(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    async with served(FakeControlPlane(), certificates) as server, linked(tmp_path, server) as it:
        sequence = await it.control.start(a_start())
        update = await it.control.result("J1")
        assert it.control.acknowledged >= sequence
        assert update.state == "completed"
        assert update.result.checkpoints[0].checkpoint_id == "CP1"
        assert update.result.pushes[0].image == "registry.test/snap/redis:v1"
        await until(lambda: it.agent.runner.briefs() == ())
        assert "s3cret-password" not in (tmp_path / "jobs" / "J1.json").read_text()


async def test_how_far_and_how_fast_a_job_is_comes_across(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    async with served(FakeControlPlane(), certificates) as server, linked(tmp_path, server) as it:
        said = JobUpdate(JobId("J1"), 1, 0, JobState.RUNNING, 25.0, "Pushing")
        it.agent.outbox.progress(replace(said, bytes_done=250, bytes_total=1000, bytes_per_s=500))
        await until(lambda: bool(it.control.updates))
        heard = it.control.updates[0]
        assert (heard.bytes_done, heard.bytes_total, heard.bytes_per_s) == (250, 1000, 500)


async def test_progress_waits_where_the_control_plane_is_behind_and_results_do_not(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    control.news_every_s = 600.0
    running = JobUpdate(JobId("J1"), 1, 0, JobState.RUNNING, 1.0)
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        it.agent.outbox.progress(running)
        await until(lambda: len(control.updates) == 1)
        after = await control.send(pb.ControlFrame(find_pod=pb.FindPod(request_id="R")))
        await until(lambda: control.acknowledged >= after)  # so it heard what it is asked, too
        it.agent.outbox.progress(replace(running, progress=2.0))
        await until(lambda: len(control.updates) == 2)
        seen = len(control.statuses)
        for percent in range(3, 50):
            it.agent.outbox.progress(replace(running, progress=float(percent)))
        await until(lambda: len(control.statuses) >= seen + 5)  # a second later
        assert len(control.updates) == 2
        ended = JobUpdate(JobId("J2"), 1, 0, JobState.COMPLETED, 100.0, result=JobResult())
        it.agent.outbox.result(ended)
        await until(lambda: bool(control.results("J2")))
        assert [one.progress for one in control.updates if one.job_id == "J1"] == [1, 2, 49]


async def test_a_job_goes_on_while_the_link_is_down(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        it.agent.shop.hold("push")
        await control.start(a_start())
        await until(lambda: "push begun" in it.agent.shop.notes())
        await control.hang_up()
        it.agent.shop.release("push")
        await until(lambda: it.agent.runner.count(JobState.COMPLETED) == 1)
        assert (await control.result("J1")).state == "completed"
        assert control.sessions == 2


async def test_a_result_is_repeated_until_it_is_acknowledged(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    control.acknowledges = False
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        await control.start(a_start())
        await control.result("J1")
        await control.hang_up()
        await until(lambda: len(control.results("J1")) == 2)
        assert [brief.job_id for brief in control.hellos[-1].jobs] == ["J1"]
        control.acknowledges = True
        await control.hang_up()
        await until(lambda: it.agent.runner.briefs() == ())
        assert it.agent.shop.notes().count("checkpoint done CP1") == 1


async def test_a_start_that_is_repeated_in_the_next_session_does_nothing_twice(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        await control.start(a_start())
        await control.result("J1")
        await control.start(a_start())
        await until(lambda: len(control.results("J1")) == 2)
        assert it.agent.shop.notes().count("checkpoint done CP1") == 1


async def test_a_cancel_ends_a_job(tmp_path: Path, certificates: tls.Certificates) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        it.agent.shop.hold("checkpoint")
        await control.start(a_start())
        await until(lambda: "checkpoint begun" in it.agent.shop.notes())
        await control.send(pb.ControlFrame(cancel=pb.CancelJob(job_id="J1", epoch=1)))
        assert (await control.result("J1")).state == "cancelled"


async def test_an_unknown_kind_is_refused_in_one_sentence(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server):
        await control.start(a_start(kind="teleport"))
        update = await control.result("J1")
        assert update.error.code == "VALIDATION_ERROR"
        assert "does not know jobs of the kind 'teleport'" in update.error.message


async def test_pods_are_found(tmp_path: Path, certificates: tls.Certificates) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server):
        for request_id, name in [("a", "pod-1"), ("b", "other"), ("c", "broken")]:
            find = pb.FindPod(request_id=request_id, namespace="default", pod_name=name)
            await control.send(pb.ControlFrame(find_pod=find))
        await until(lambda: len(control.pods) == 3)
        assert control.pods["a"].found
        assert control.pods["a"].containers[0].container_id == "c0ffee"
        assert dict(control.pods["a"].labels) == {"app": "redis"}
        assert not control.pods["b"].found
        assert control.pods["b"].error == ""
        assert "does not answer" in control.pods["c"].error


async def test_archives_are_sent_from_an_offset(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server):
        for transfer_id, offset, length in [("all", 0, 0), ("rest", 5000, 0), ("part", 7, 1500)]:
            wanted = pb.OpenArchive(
                transfer_id=transfer_id, checkpoint_id="CP1", offset=offset, length=length
            )
            await control.send(pb.ControlFrame(open_archive=wanted))
        await until(lambda: len(control.archives) == 3)
        assert control.archives["all"] == ARCHIVE
        assert control.archives["rest"] == ARCHIVE[5000:]
        assert control.archives["part"] == ARCHIVE[7:1507]


async def test_an_archive_that_is_not_here_is_refused(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server):
        for transfer_id, checkpoint_id, offset in [("t1", "CP9", 0), ("t2", "CP1", 99999)]:
            wanted = pb.OpenArchive(
                transfer_id=transfer_id, checkpoint_id=checkpoint_id, offset=offset
            )
            await control.send(pb.ControlFrame(open_archive=wanted))
        await until(lambda: len(control.refused_archives) == 2)
        assert control.refused_archives["t1"].code == "CHECKPOINT_NOT_FOUND"
        assert control.refused_archives["t2"].code == "VALIDATION_ERROR"


async def test_sequences_rise_over_a_restart_of_the_agent(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()  # it asserts that they rise
    async with served(control, certificates) as server:
        async with linked(tmp_path, server):
            await control.start(a_start("J1"))
            await control.result("J1")
        async with linked(tmp_path, server):
            await control.start(a_start("J2"))
            await control.result("J2")
    assert control.hellos[0].public_key == control.hellos[1].public_key
    assert control.hellos[1].last_sequence >= control.results("J1")[0].sequence


async def test_a_lost_journal_takes_the_control_planes_word_for_the_sequence(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    control.up_to = 5000
    async with served(control, certificates) as server, linked(tmp_path, server):
        await control.start(a_start())
        assert (await control.result("J1")).sequence > 5000


async def test_a_refused_join_is_said_in_one_sentence(
    tmp_path: Path, certificates: tls.Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        served(FakeControlPlane(), certificates) as server,
        linked(tmp_path, server, token="old-token"),
    ):
        await until(lambda: bool(caplog.records))
    assert caplog.messages[-1] == (
        "the control plane refused this node: the join token is not valid; get a new one"
    )
    assert "old-token" not in caplog.text


async def test_another_ca_is_said_in_one_sentence(
    tmp_path: Path, certificates: tls.Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(tls.make().ca)
    async with served(FakeControlPlane(), certificates) as server:
        dial = Dialling(server.target, other, lambda: TOKEN)
        async with linked(tmp_path, server, dial=dial):
            await until(lambda: "not signed by the CA in SNAP_CA_FILE" in caplog.text)


async def test_a_control_plane_that_comes_later_is_found(
    tmp_path: Path, certificates: tls.Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(FakeControlPlane(), certificates) as first:
        port = first.port
    dead = Served(first.plane, port, certificates)
    async with linked(tmp_path, dead) as it:
        await until(lambda: "nobody listens there" in caplog.text)
        async with served(FakeControlPlane(), certificates, port):
            await until(lambda: it.session.is_up)


async def test_outcomes_of_restores_are_told_once(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    async with served(control, certificates) as server, linked(tmp_path, server) as it:
        for number in range(250):
            it.restored(number)
        await until(lambda: len(control.outcomes) == 250 and it.restores.untold(0) == ())
        assert [int(one.container_id) for one in control.outcomes] == list(range(250))
        assert control.outcomes[0].action == "restored"
        await control.hang_up()
        it.restored(250)
        await until(lambda: len(control.outcomes) == 251)


async def test_outcomes_are_repeated_until_they_are_stored(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    control = FakeControlPlane()
    control.acknowledges = False
    async with served(control, certificates) as server:
        async with linked(tmp_path, server) as it:
            it.restored(1)
            await until(lambda: len(control.outcomes) == 1)
        control.acknowledges = True
        async with linked(tmp_path, server) as it:  # another agent, over the same files
            await until(lambda: len(control.outcomes) == 2 and it.restores.untold(0) == ())
            assert control.outcomes[0] == control.outcomes[1]
            it.restored(2)
            await until(lambda: len(control.outcomes) == 3)
    assert control.outcomes[2].sequence > control.outcomes[1].sequence
