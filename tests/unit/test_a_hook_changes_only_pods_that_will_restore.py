"""What a hook does about a new pod: a pure function; its patches are applied here as the API server does."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from controlplane.hook.admission import Answer, NotAReview, Policy, answer
from controlplane.hook.index import ClusterSeen, Index
from controlplane.link.frames import NodeFacts
from controlplane.store.starts import StartTimes
from controlplane.store.workloads import Offer
from tests.fakes.offers import POLICY, REFERENCE, cluster, offer
from tests.fakes.pods import new_pod, node, review

CHECKPOINT = "snap.weaversoft.io/checkpoint"
NOT_RESTORED = "snap.weaversoft.io/not-restored"
MUTATED = "snap.weaversoft.io/mutated"


def reviewed(
    pod: dict[str, Any],
    *,
    offers: tuple[Offer, ...] | None = None,
    policy: Policy = POLICY,
    seen: ClusterSeen | None = None,
    index: Index | None = None,
    **request: Any,
) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the pod as the API server makes it of it."""
    known = index or Index((offer(),) if offers is None else offers)
    given = answer(review(pod, **request), policy, known, seen or cluster())
    assert given.response["response"]["allowed"] is True
    return given, patched(pod, given)


def patched(pod: dict[str, Any], given: Answer) -> dict[str, Any]:
    response = given.response["response"]
    if "patch" not in response:
        return copy.deepcopy(pod)
    assert response["patchType"] == "JSONPatch"
    made: dict[str, Any] = jsonpatch.apply_patch(
        pod, json.loads(base64.b64decode(response["patch"]))
    )
    return made


def reason(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("annotations", {}).get(NOT_RESTORED, ""))


def test_a_pod_of_a_checkpointed_workload_is_to_start_from_it() -> None:
    given, pod = reviewed(new_pod())
    assert given.restores == {"main": REFERENCE}
    assert pod["spec"]["runtimeClassName"] == "snap"
    assert json.loads(pod["metadata"]["annotations"][CHECKPOINT]) == {"main": REFERENCE}
    assert pod["metadata"]["labels"][MUTATED] == "true"
    assert pod["spec"]["containers"] == new_pod()["spec"]["containers"]
    assert reason(pod) == ""


def test_the_same_pod_again_gives_no_further_change() -> None:
    _, once = reviewed(new_pod())
    given, twice = reviewed(once)
    assert twice == once
    assert "patch" not in given.response["response"]


def test_a_pod_that_another_webhook_makes_fit_is_told_nothing_old() -> None:
    before = new_pod()
    variable = before["spec"]["containers"][0]["env"].pop()
    _, once = reviewed(before)
    assert "variable MODE" in reason(once)
    once["spec"]["containers"][0]["env"].append(variable)
    given, twice = reviewed(once)
    assert given.restores == {"main": REFERENCE}
    assert NOT_RESTORED not in twice["metadata"]["annotations"]


def test_what_the_pod_has_stays() -> None:
    before = new_pod()
    before["metadata"]["annotations"] = {"a/b~c": "kept"}
    before["spec"]["affinity"] = {"podAntiAffinity": {}}
    _, after = reviewed(before)
    assert after["metadata"]["annotations"]["a/b~c"] == "kept"
    assert after["spec"]["affinity"] == {"podAntiAffinity": {}}


@pytest.mark.parametrize(
    "labels",
    [{"snap.weaversoft.io/snap": "false"}, {"snap.weaversoft.io/snap": "TRUE"}, {}],
    ids=["false", "other", "none"],
)
def test_a_pod_that_does_not_ask_is_not_touched(labels: dict[str, str]) -> None:
    pod = new_pod()
    pod["metadata"]["labels"] = labels
    given, after = reviewed(pod)
    assert (after, given.reason) == (pod, "")


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"subResource": "ephemeralcontainers"},
        {"namespace": "kube-system"},
        {"namespace": "snap-system"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items() if k != "object"),
)
def test_only_new_pods_are_changed_and_never_those_of_the_system(request_: dict[str, Any]) -> None:
    policy = replace(POLICY, namespaces_left_alone=frozenset({"snap-system"}))
    given = answer(review(new_pod(), **request_), policy, Index((offer(),)), cluster())
    assert given.response["response"] == {
        "uid": review(new_pod())["request"]["uid"],
        "allowed": True,
    }


def _own_class(pod: dict[str, Any]) -> None:
    pod["spec"]["runtimeClassName"] = "gvisor"


def _command(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["command"] = ["/web", "--debug"]


def _args(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["args"] = ["--port=1"]


def _value(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["env"][0]["value"] = "a-secret-word"


def _env(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["env"].append({"name": "MORE", "value": "a-secret-word"})


def _mount(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "cache", "mountPath": "/more"})


def _read_only(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] = True


def _volume(pod: dict[str, Any]) -> None:
    pod["spec"]["volumes"][0] = {"name": "cache", "hostPath": {"path": "/tmp"}}


def _context(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["securityContext"] = {"allowPrivilegeEscalation": False}


def _pods_context(pod: dict[str, Any]) -> None:
    pod["spec"]["securityContext"] = {"runAsUser": 0}


def _image(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["image"] = "registry.test/web:2"


def _host_pid(pod: dict[str, Any]) -> None:
    pod["spec"]["hostPID"] = True


def _host_users(pod: dict[str, Any]) -> None:
    pod["spec"]["hostUsers"] = False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_own_class, "runtimeClassName of its own (gvisor)"),
        (_command, "another command"),
        (_args, "another command"),
        (_value, "variable MODE"),
        (_env, "variable MORE"),
        (_mount, "mount /more"),
        (_read_only, "mount /cache"),
        (_volume, "mount /cache"),
        (_context, "security context"),
        (_pods_context, "security context"),
        (_image, "another image"),
        (_host_pid, "namespaces"),
        (_host_users, "namespaces"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_pod_that_asks_for_something_else_is_left_alone_and_told_why(
    change: Any, words: str
) -> None:
    pod = new_pod()
    change(pod)
    given, after = reviewed(pod)
    assert given.restores == {}
    assert words in reason(after)
    assert "a-secret-word" not in reason(after)
    assert CHECKPOINT not in after["metadata"]["annotations"]
    assert after["spec"] == pod["spec"]


def _with_claim(**mount: Any) -> dict[str, Any]:
    pod = new_pod("web-1")
    (container,) = pod["spec"]["containers"]
    container["volumeMounts"].append({"name": "data", "mountPath": "/data", **mount})
    pod["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "d"}})
    return pod


def test_memory_is_not_put_beside_a_volume_that_went_on_without_it() -> None:
    offers = (offer(_with_claim()),)
    given, pod = reviewed(_with_claim(), offers=offers)
    assert (given.restores, "runtimeClassName" in pod["spec"]) == ({}, False)
    assert "claimed volume at /data" in reason(pod)
    agreed = _with_claim()
    agreed["metadata"]["annotations"] = {"snap.weaversoft.io/restore-with-volumes": "true"}
    assert reviewed(agreed, offers=offers)[0].restores
    raw = _with_claim()
    (container,) = raw["spec"]["containers"]
    del container["volumeMounts"][-1]
    container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    assert "claimed volume at /dev/data" in reason(reviewed(raw, offers=(offer(raw),))[1])
    raw["metadata"]["annotations"] = {"snap.weaversoft.io/restore-with-volumes": "true"}
    assert "another device /dev/data" in reason(reviewed(raw)[1])
    read_only = _with_claim(readOnly=True)
    assert reviewed(read_only, offers=(offer(_with_claim(readOnly=True)),))[0].restores


def test_what_every_pod_has_under_another_name_is_no_difference() -> None:
    pod = json.loads(json.dumps(new_pod()).replace("x7k2p", "zzzzz"))
    pod["spec"]["containers"][0]["securityContext"] = {}
    pod["spec"]["securityContext"] = {}
    pod["spec"]["hostUsers"] = True
    assert reviewed(pod)[0].restores


@pytest.mark.parametrize(
    ("offers", "words"),
    [((), "no checkpoint"), ((offer(namespaces=("other",)),), "no checkpoint")],
    ids=["none", "not granted here"],
)
def test_without_a_checkpoint_the_pod_is_told_so(offers: tuple[Offer, ...], words: str) -> None:
    assert words in reason(reviewed(new_pod(), offers=offers)[1])


def test_another_template_has_no_checkpoint() -> None:
    pod = new_pod(labels={"pod-template-hash": "7777"})
    pod["metadata"]["ownerReferences"][0]["name"] = "web-7777"
    assert "no checkpoint" in reason(reviewed(pod)[1])


def _replica(name: str, **annotations: str) -> dict[str, Any]:
    """A pod of the StatefulSet ``db``: it is being created under its name."""
    pod = new_pod(name, labels={"controller-revision-hash": "db-77", "pod-template-hash": ""})
    pod["metadata"]["ownerReferences"][0] |= {"kind": "StatefulSet", "name": "db"}
    pod["metadata"]["annotations"] = {f"snap.weaversoft.io/{k}": v for k, v in annotations.items()}
    return pod


def test_a_statefulsets_pod_starts_from_its_own_memory_and_from_no_others() -> None:
    offers = (offer(_replica("db-0")),)
    assert reviewed(_replica("db-0"), offers=offers)[0].restores
    given, pod = reviewed(_replica("db-1"), offers=offers)
    assert (given.restores, "runtimeClassName" in pod["spec"]) == ({}, False)
    assert "no checkpoint of db-1" in reason(pod)
    assert "snap.weaversoft.io/replicas-alike" in reason(pod)


def test_a_statefulset_may_say_that_its_pods_are_alike() -> None:
    alike = {"replicas-alike": "true"}
    offers = (offer(_replica("db-0", **alike)),)
    assert reviewed(_replica("db-1", **alike), offers=offers)[0].restores
    assert not reviewed(_replica("db-1"), offers=offers)[0].restores


def test_pods_of_one_generated_name_are_one_workload() -> None:
    running, new = new_pod("web-x7k2p"), new_pod()  # a new one has no name yet
    for pod in (running, new):
        del pod["metadata"]["ownerReferences"]
    assert reviewed(new, offers=(offer(running),))[0].restores


def test_a_shared_checkpoint_is_good_in_the_namespaces_it_is_shared_with() -> None:
    shared = offer(namespaces=("apps", "copy"))
    assert reviewed(new_pod(namespace="copy"), offers=(shared,))[0].restores


def test_the_newest_checkpoint_that_fits_is_taken() -> None:
    other = offer(checkpoint_id="01NEWER", asks={"image": "different"})
    given, _ = reviewed(new_pod(), offers=(other, offer()))
    assert given.restores == {"main": REFERENCE}


def test_a_workload_that_restores_slower_is_left_alone() -> None:
    times = {offer().workload: StartTimes((1000.0,), (9000.0, 9000.0, 9000.0))}
    given, after = reviewed(new_pod(), index=Index((offer(),), times))
    assert given.restores == {}
    assert "its last 3 restores took 9.0 s" in reason(after)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (cluster(has_runtime_class=False), "no RuntimeClass"),
        (cluster(node("a"), node("b", prepared=False)), "node b"),
        (cluster(node("a", prepared=False)), "node a"),
        (cluster(node("a", ready=False)), "no node"),
    ],
    ids=["no class", "one of two", "none", "not ready"],
)
def test_where_a_pod_might_not_start_it_is_left_alone(seen: ClusterSeen, words: str) -> None:
    given, after = reviewed(new_pod(), seen=seen)
    assert given.restores == {}
    assert words in reason(after)


def test_one_prepared_node_is_enough_where_that_was_chosen() -> None:
    seen = cluster(node("a"), node("b", prepared=False))
    assert reviewed(new_pod(), seen=seen, policy=replace(POLICY, partial=True))[0].restores


def _selects(pod: dict[str, Any]) -> None:
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "a"}


def _requires(pod: dict[str, Any]) -> None:
    rule = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["b"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    pod["spec"]["affinity"] = {"nodeAffinity": {field: terms}}


@pytest.mark.parametrize("narrow", [_selects, _requires], ids=["selector", "affinity"])
def test_only_nodes_that_the_pod_could_use_count(narrow: Any) -> None:
    pod = new_pod()
    narrow(pod)
    seen = cluster(node("a"), node("b", prepared=False))
    assert reviewed(pod, seen=seen)[0].restores


@pytest.mark.parametrize(
    ("toleration", "restores"),
    [
        (None, True),
        ({"key": "gpu", "operator": "Exists"}, False),
        ({"operator": "Exists"}, False),
        ({"key": "gpu", "value": "no"}, True),
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, False),
    ],
    ids=["none", "key", "all", "other value", "value"],
)
def test_tainted_nodes_count_for_pods_that_tolerate_them(
    toleration: dict[str, str] | None, restores: bool
) -> None:
    pod = new_pod()
    pod["spec"]["tolerations"] = [toleration] if toleration else []
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    seen = cluster(node("a"), node("b", prepared=False, taints=[taint]))
    assert bool(reviewed(pod, seen=seen)[0].restores) is restores


def test_cordoned_nodes_do_not_count() -> None:
    seen = cluster(node("a"), node("b", prepared=False, unschedulable=True))
    assert reviewed(new_pod(), seen=seen)[0].restores


def test_nodes_that_have_what_the_checkpoint_needs_are_preferred() -> None:
    needs = offer(fingerprint_json='{"cpu_features":["avx512f"],"architecture":"amd64"}')
    new = NodeFacts(architecture="amd64", cpu_features=("avx512f", "sse2"))
    old = NodeFacts(architecture="amd64", cpu_features=("sse2",))
    seen = cluster(node("a"), node("b"), a=old, b=new)
    _, pod = reviewed(new_pod(), offers=(needs,), seen=seen)
    rules = pod["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert rules[0]["preference"]["matchExpressions"][0]["values"] == ["b"]
    none_fits = cluster(node("a"), node("b"), a=old, b=old)
    _, pod = reviewed(new_pod(), offers=(needs,), seen=none_fits)
    assert "no node has what the checkpoint needs" in reason(pod)


def _two_containers() -> dict[str, Any]:
    pod = new_pod()
    pod["spec"]["containers"].append({"name": "side", "image": "registry.test/side:1"})
    pod["spec"]["initContainers"] = [
        {"name": "init", "image": "registry.test/init:1"},
        {"name": "proxy", "image": "registry.test/proxy:1", "restartPolicy": "Always"},
    ]
    return pod


def test_each_container_is_looked_at_alone_and_init_and_sidecar_containers_not_at_all() -> None:
    given, pod = reviewed(_two_containers(), offers=(offer(_two_containers()),))
    assert list(given.restores) == ["main"]
    assert reason(pod) == "side: there is no checkpoint of this workload"
    assert pod["spec"]["initContainers"] == _two_containers()["spec"]["initContainers"]


def test_the_pod_may_name_the_containers_that_count() -> None:
    pod = _two_containers()
    pod["metadata"]["annotations"] = {"snap.weaversoft.io/containers": "main"}
    given, after = reviewed(pod, offers=(offer(_two_containers()),))
    assert (list(given.restores), reason(after)) == (["main"], "")


def test_the_image_driver_gives_the_container_the_checkpoints_image() -> None:
    policy = replace(POLICY, driver="image")
    seen = cluster(node("a", prepared=False), has_runtime_class=False)
    _, pod = reviewed(new_pod(), policy=policy, seen=seen)
    assert pod["spec"]["containers"][0]["image"] == REFERENCE
    assert "runtimeClassName" not in pod["spec"]
    assert reviewed(pod, policy=policy, seen=seen)[1] == pod


def test_a_dry_run_is_answered_as_any_other_and_known_as_one() -> None:
    given, pod = reviewed(new_pod(), dryRun=True)
    assert given.dry_run
    assert pod["spec"]["runtimeClassName"] == "snap"


@pytest.mark.parametrize(
    "body", [None, [], {}, {"request": []}, {"request": {}}, {"request": {"uid": 5}}], ids=repr
)
def test_what_is_no_review_is_not_answered(body: Any) -> None:
    with pytest.raises(NotAReview):
        answer(body, POLICY, Index(), cluster())
