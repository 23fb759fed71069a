"""Frames from the agent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from agent.formats import jobs
from agent.link import frames
from agent.node import facts
from agent.restore.outcome import Outcome
from snap_protos.snap.v1 import link_pb2 as pb


def hello(said: frames.Hello) -> pb.AgentFrame:
    """Who we are."""
    return pb.AgentFrame(
        hello=pb.Hello(
            cluster=said.cluster,
            node=said.node,
            agent_version=said.agent_version,
            boot_id=said.boot_id,
            facts=_facts(said.facts),
            public_key=said.public_key,
            signature=said.signature,
            last_sequence=said.last_sequence,
            jobs=[
                pb.JobBrief(job_id=brief.job_id, epoch=brief.epoch, state=brief.state)
                for brief in said.jobs
            ],
        )
    )


def status(now: facts.NodeStatus) -> pb.AgentFrame:
    """How the node is."""
    readiness = now.readiness
    return pb.AgentFrame(
        status=pb.NodeStatus(
            taken_at=now.taken_at,
            ready=readiness.ready,
            reasons=[
                pb.Reason(code=reason.code, message=reason.message, remedy=reason.remedy)
                for reason in readiness.reasons
            ],
            disk_total_bytes=now.vitals.disk_total_bytes,
            disk_free_bytes=now.vitals.disk_free_bytes,
            memory_total_bytes=now.vitals.memory_total_bytes,
            memory_available_bytes=now.vitals.memory_available_bytes,
            agent_memory_bytes=now.vitals.agent_memory_bytes,
            cpu_percent=now.vitals.cpu_percent,
            running_jobs=now.running_jobs,
            queued_jobs=now.queued_jobs,
            checkpoints=now.checkpoints,
            facts=_facts(readiness.facts) if now.with_facts else None,
        )
    )


def updates(news: Iterable[jobs.JobUpdate]) -> pb.AgentFrame:
    """What became of jobs."""
    return pb.AgentFrame(updates=pb.JobUpdates(updates=[_update(update) for update in news]))


def ack(up_to_sequence: int) -> pb.AgentFrame:
    """Control frames up to this one are done with."""
    return pb.AgentFrame(ack=pb.Ack(up_to_sequence=up_to_sequence))


def pod_found(request_id: str, pod: facts.FoundPod | None, error: str = "") -> pb.AgentFrame:
    """The answer to FindPod; ``error`` when the runtime did not answer."""
    found = pb.PodFound(error=error) if pod is None else _pod(pod)
    found.request_id = request_id
    return pb.AgentFrame(pod_found=found)


def pods_found(request_id: str, pods: Iterable[facts.FoundPod]) -> pb.AgentFrame:
    """The answer to FindPod for every pod."""
    every = [_pod(pod) for pod in pods]
    return pb.AgentFrame(pod_found=pb.PodFound(request_id=request_id, found=True, pods=every))


def _pod(pod: facts.FoundPod) -> pb.PodFound:
    return pb.PodFound(
        found=True,
        pod_uid=pod.uid,
        pod_name=pod.name,
        namespace=pod.namespace,
        ready=pod.ready,
        labels=dict(pod.labels),
        containers=[
            pb.PodContainer(
                name=container.name,
                container_id=container.container_id,
                state=container.state,
                image=container.image,
                image_ref=container.image_ref,
            )
            for container in pod.containers
        ],
    )


def archive_refused(transfer_id: str, code: str, message: str) -> pb.AgentFrame:
    """The archive that was asked for can't be sent."""
    return pb.AgentFrame(
        archive_refused=pb.ArchiveRefused(transfer_id=transfer_id, code=code, message=message)
    )


def restore_outcomes(outcomes: Iterable[Outcome]) -> pb.AgentFrame:
    """What became of containers that were to be restored."""
    return pb.AgentFrame(
        restore_outcomes=pb.RestoreOutcomes(
            outcomes=[
                pb.RestoreOutcome(
                    sequence=one.sequence,
                    container_id=one.container_id,
                    container_name=one.container_name,
                    namespace=one.namespace,
                    pod_name=one.pod_name,
                    pod_uid=one.pod_uid,
                    image=one.image,
                    action=one.action,
                    code=one.code,
                    reason=one.reason,
                    details=one.details,
                    mode=one.mode,
                    at=one.at,
                    prepare_ms=one.prepare_ms,
                    restore_ms=one.restore_ms,
                    start_ms=one.start_ms,
                )
                for one in outcomes
            ]
        )
    )


def _facts(known: facts.NodeFacts) -> pb.NodeFacts:
    return pb.NodeFacts(**asdict(known))


def _update(update: jobs.JobUpdate) -> pb.JobUpdate:
    result, error = update.result, update.error
    return pb.JobUpdate(
        job_id=update.job_id,
        epoch=update.epoch,
        sequence=update.sequence,
        state=update.state,
        progress=update.progress,
        message=update.message,
        task_name=update.task_name,
        bytes_done=update.bytes_done,
        bytes_total=update.bytes_total,
        bytes_per_s=update.bytes_per_s,
        result=_result(result) if result else None,
        error=pb.JobFailure(**asdict(error)) if error else None,
    )


def _result(result: jobs.JobResult) -> pb.JobResult:
    return pb.JobResult(
        checkpoints=[pb.CheckpointResult(**asdict(one)) for one in result.checkpoints],
        pushes=[pb.PushResult(**asdict(one)) for one in result.pushes],
        report_json=result.report_json,
    )
