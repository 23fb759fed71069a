"""Whether a watcher checkpoints a container, and what it says about it: a pure function."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane import errors
from controlplane.errors import Refused
from controlplane.kube.workloads import PodSeen, read_pod
from controlplane.store.records import CheckpointStatus
from controlplane.watcher import triggers
from controlplane.watcher.deciding import (
    BACKOFF_S,
    Action,
    Attempt,
    Decision,
    Scope,
    Situation,
    decide,
)
from controlplane.watcher.triggers import TRIGGERS, Setting
from tests.fakes.pods import NOW, running_pod, stamp

GOOD = Attempt("01GOOD", CheckpointStatus.COMPLETED, has_image=True)
BUSY = Attempt("01BUSY", CheckpointStatus.RUNNING)
MINUTE = timedelta(minutes=1)


def failed(minutes_ago: float = 60.0, **values: Any) -> Attempt:
    ended = NOW - timedelta(minutes=minutes_ago)
    given: dict[str, Any] = {"error": "CRIU could not dump it", "ended_at": ended} | values
    return Attempt("01BAD", CheckpointStatus.FAILED, **given)


def decided(
    pod: dict[str, Any],
    trigger: str = "startupProbe",
    *,
    situation: Situation | None = None,
    namespace: str = "",
    **setting: Any,
) -> Decision:
    seen = read_pod(pod)
    scope = Scope(Setting(trigger, **setting), namespace)
    return decide(scope, seen, seen.containers[0], situation or Situation(), NOW)


def with_status(pod: dict[str, Any], **values: Any) -> dict[str, Any]:
    pod["status"]["containerStatuses"][0] |= values
    return pod


def with_probe(pod: dict[str, Any]) -> dict[str, Any]:
    pod["spec"]["containers"][0]["startupProbe"] = {"exec": {"command": ["true"]}}
    return pod


def test_a_pod_that_passed_its_startup_probe_is_checkpointed() -> None:
    pod = with_probe(running_pod(ready_s=None))
    assert decided(pod) == Decision(Action.CHECKPOINT, "this workload has no checkpoint yet")
    waits = decided(with_status(pod, started=False))
    assert waits.action is Action.WAIT
    assert "startup probe" in waits.reason


def test_a_pod_without_a_startup_probe_counts_as_started_when_it_is_ready() -> None:
    assert decided(running_pod(ready_s=None)).action is Action.WAIT
    assert decided(running_pod(ready_s=0.0)).action is Action.CHECKPOINT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"snap.weaversoft.io/snap": "false"}}, "label"),
        ({"labels": {}}, "label"),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, "static pod"),
        ({"deletionTimestamp": stamp(NOW + MINUTE)}, "being deleted"),
        ({"annotations": {"snap.weaversoft.io/containers": "other"}}, "does not name it"),
    ],
    ids=["label false", "no label", "mirror", "deleting", "not chosen"],
)
def test_what_a_watcher_never_touches(change: dict[str, Any], words: str) -> None:
    pod = running_pod()
    pod["metadata"] |= change
    decision = decided(pod)
    assert decision.action is Action.SKIP
    assert words in decision.reason


def test_a_watcher_of_one_namespace_leaves_others_alone() -> None:
    assert decided(running_pod(), namespace="apps").action is Action.CHECKPOINT
    assert decided(running_pod(), namespace="other").action is Action.SKIP


def test_a_container_that_does_not_run_is_waited_for() -> None:
    pod = with_status(running_pod(), state={"waiting": {"reason": "CrashLoopBackOff"}})
    assert decided(pod).action is Action.WAIT


def test_the_label_alone_does_not_say_that_a_pod_was_restored() -> None:
    pod = running_pod(labels={"snap.weaversoft.io/mutated": "true"})
    assert decided(pod).action is Action.WAIT
    assert decided(pod, situation=Situation(started_by="cold")).action is Action.CHECKPOINT
    assert decided(pod, situation=Situation(started_by="failed")).action is Action.CHECKPOINT
    restored = decided(pod, situation=Situation(started_by="restored"))
    assert (restored.action, "from a checkpoint" in restored.reason) == (Action.SKIP, True)


def test_a_pod_whose_image_is_a_checkpoint_needs_none() -> None:
    pod = running_pod(labels={"snap.weaversoft.io/mutated": "true"})
    pod["spec"]["containers"][0]["image"] = "r/x@sha256:1"
    pod["metadata"]["annotations"] = {"snap.weaversoft.io/checkpoint": '{"main":"r/x@sha256:1"}'}
    assert decided(pod).action is Action.SKIP


@pytest.mark.parametrize("attempts", [(GOOD,), (failed(), GOOD)], ids=["good", "good before"])
def test_one_checkpoint_of_a_workload_is_enough(attempts: tuple[Attempt, ...]) -> None:
    decision = decided(running_pod(), situation=Situation(attempts))
    assert (decision.action, "01GOOD" in decision.reason) == (Action.SKIP, True)


def test_a_replica_waits_for_the_checkpoint_that_is_being_made() -> None:
    assert decided(running_pod(), situation=Situation((BUSY,))).action is Action.WAIT


def test_what_was_deleted_or_not_pushed_is_made_anew() -> None:
    gone = Attempt("01GONE", CheckpointStatus.DELETED, has_image=True)
    assert decided(running_pod(), situation=Situation((gone,))).action is Action.CHECKPOINT
    unpushed = Attempt("01LOCAL", CheckpointStatus.COMPLETED, ended_at=NOW - 60 * MINUTE)
    assert decided(running_pod(), situation=Situation((unpushed,))).action is Action.CHECKPOINT


def test_what_can_not_be_restored_is_no_checkpoint() -> None:
    bad = Attempt(
        "01BAD",
        CheckpointStatus.COMPLETED,
        has_image=True,
        condemned="it can't be restored: CRIU failed",
        ended_at=NOW - 60 * MINUTE,
    )
    decision = decided(running_pod(), situation=Situation((bad,)))
    assert decision.action is Action.CHECKPOINT
    assert "try 2" in decision.reason


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_after_a_failure_it_waits_longer_each_time(failures: int) -> None:
    just = [failed(0.0)] * failures
    decision = decided(running_pod(), situation=Situation(just))
    assert decision.action is Action.WAIT
    assert decision.again_at == NOW + timedelta(seconds=BACKOFF_S[failures - 1])
    assert "CRIU could not dump it" in decision.reason
    later = [failed(BACKOFF_S[failures - 1] / 60)] * failures
    assert decided(running_pod(), situation=Situation(later)).action is Action.CHECKPOINT


def test_in_the_end_it_gives_up_and_says_why() -> None:
    decision = decided(running_pod(), situation=Situation([failed()] * 4))
    assert decision.action is Action.SKIP
    assert decision.reason == "given up after 4 tries: CRIU could not dump it"


def test_a_workload_that_restores_slower_is_left_alone() -> None:
    situation = Situation(not_worth_it="its last 3 restores took 9.0 s or more")
    decision = decided(running_pod(), situation=situation)
    assert (decision.action, decision.reason) == (Action.SKIP, situation.not_worth_it)


def test_ready_may_have_to_last() -> None:
    assert decided(running_pod(ready_s=None), "ready").action is Action.WAIT
    waits = decided(running_pod(ready_s=20.0), "ready", delay_s=30.0)
    assert (waits.action, waits.again_at) == (Action.WAIT, NOW + timedelta(seconds=10))
    assert decided(running_pod(ready_s=30.0), "ready", delay_s=30.0).action is Action.CHECKPOINT


def test_running_may_have_to_last() -> None:
    assert decided(running_pod(ready_s=None), "running").action is Action.CHECKPOINT
    assert decided(running_pod(ready_s=None), "running", delay_s=101.0).action is Action.WAIT


def test_each_value_of_the_annotation_asks_once() -> None:
    pod = running_pod()
    assert decided(pod, "annotation").action is Action.WAIT
    pod["metadata"]["annotations"] = {"snap.weaversoft.io/checkpoint-request": "before the release"}
    first = decided(pod, "annotation", situation=Situation((GOOD,)))
    assert first.action is Action.CHECKPOINT
    made = Attempt("01NEW", CheckpointStatus.COMPLETED, has_image=True, moment=first.moment)
    assert decided(pod, "annotation", situation=Situation((made, GOOD))).action is Action.SKIP
    pod["metadata"]["annotations"] = {"snap.weaversoft.io/checkpoint-request": "again"}
    assert decided(pod, "annotation", situation=Situation((made,))).action is Action.CHECKPOINT


def test_a_schedule_asks_at_each_of_its_times() -> None:
    since = NOW - timedelta(hours=2)
    every_hour: dict[str, Any] = {"schedule": "0 * * * *", "since": since}
    pod = with_status(running_pod(), state={"running": {"startedAt": stamp(since)}})
    first = decided(pod, "schedule", **every_hour)
    assert (first.action, first.again_at) == (Action.CHECKPOINT, NOW + timedelta(hours=1))
    made = Attempt("01T", CheckpointStatus.COMPLETED, has_image=True, moment=first.moment)
    later = decided(pod, "schedule", situation=Situation((made,)), **every_hour)
    assert (later.action, later.again_at) == (Action.SKIP, NOW + timedelta(hours=1))


def test_times_before_the_container_ran_are_over() -> None:
    decision = decided(running_pod(), "schedule", schedule="30 * * * *")
    assert (decision.action, decision.again_at) == (Action.WAIT, NOW + timedelta(minutes=30))


def test_no_schedule_is_refused() -> None:
    for wrong in ("every hour", "* * * * * *", "0 0 * * 1#2/2", "0 0 31 2 *"):
        with pytest.raises(Refused, match="five fields") as refusal:
            triggers.check_schedule(wrong)
        assert refusal.value.code == errors.VALIDATION_ERROR


def test_a_drain_checkpoints_what_will_go() -> None:
    pod = running_pod()
    assert decided(pod, "drain").action is Action.WAIT
    assert decided(pod, "drain", situation=Situation(cordoned=True)).action is Action.CHECKPOINT
    pod["metadata"]["deletionTimestamp"] = stamp(NOW + timedelta(seconds=30))
    assert decided(pod, "drain").action is Action.CHECKPOINT
    pod["metadata"]["deletionTimestamp"] = stamp(NOW + timedelta(seconds=2))
    assert decided(pod, "drain").action is Action.WAIT


def test_a_drained_pod_is_checkpointed_though_its_workload_has_one_and_it_was_restored() -> None:
    situation = Situation((GOOD,), started_by="restored", cordoned=True)
    first = decided(running_pod(), "drain", situation=situation)
    assert first.action is Action.CHECKPOINT
    made = Attempt("01D", CheckpointStatus.COMPLETED, has_image=True, moment=first.moment)
    again = Situation((made, GOOD), started_by="restored", cordoned=True)
    assert decided(running_pod(), "drain", situation=again).action is Action.SKIP


@pytest.mark.parametrize("trigger", sorted(TRIGGERS))
def test_every_trigger_decides_about_every_pod(trigger: str) -> None:
    pods: list[dict[str, Any]] = [running_pod(), running_pod(ready_s=None), {"metadata": {}}, {}]
    for pod in pods:
        seen: PodSeen = read_pod(pod)
        for container in seen.containers:
            scope = Scope(Setting(trigger, schedule="* * * * *"))
            assert decide(scope, seen, container, Situation(), NOW).reason
