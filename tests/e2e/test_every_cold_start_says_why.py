"""Whatever is missing, a pod starts, about as soon as one that SNAP has nothing to do with, and says why it is cold."""

from __future__ import annotations

import json
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import (
    CHECKPOINT,
    NOT_RESTORED,
    SNAP,
    Operated,
    deployment,
    notes,
    operating,
    was_restored,
)

pytestmark = pytest.mark.cluster
LATE_S = 3.0  # two, and one for times of whole seconds
# a name in memory only: whoever says it too comes from the same process
NAMED = """
read -r name </proc/sys/kernel/random/uuid; echo >/ready
while :; do echo $name; sleep 1; done
"""
MEASURED = 5  # times at most: a busy machine delays one pod or the other


@pytest.fixture(scope="module")
def operated(cluster: Cluster) -> Iterator[Operated]:
    """A workload with a checkpoint, and a twin that is not SNAP's business."""
    with operating(cluster, "cold") as made:
        rest = made.rest
        watcher = {"name": "w", "cluster_name": "dev", "trigger": "ready", "auto_delete_pod": False}
        rest.post("/operator/snapwatcher", watcher)
        rest.post("/snaphook", {"name": "h", "cluster_name": "dev"})
        rest.post("/snaphook/h/start", {})
        made.deployment("known", rounds=1_000)
        twin = deployment(cluster, "plain", 1, 1_000)
        del twin["spec"]["template"]["metadata"]["labels"][SNAP]
        cluster.apply(twin)
        for name in ("known", "plain"):
            made.wait_ready(name, 1)
        made.wait_checkpoint("w", "known")
        rest.call("POST", "/operator/snapwatcher/w/stop")
        yield made
        rest.call("DELETE", "/snaphook/h")
        rest.call("DELETE", "/operator/snapwatcher/w")
        cluster.delete("deployments", "--all")


def started_s(pod: dict[str, Any]) -> float:
    """Seconds from a pod's creation until its process started."""
    (status,) = pod["status"]["containerStatuses"]
    state = status["state"].get("running") or status["state"]["terminated"]
    began = datetime.fromisoformat(state["startedAt"])
    return (began - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()


def one_more(operated: Operated) -> tuple[dict[str, Any], float]:
    """Another pod of the workload, and how much later than its twin's its process started."""
    before = {p["metadata"]["uid"] for name in ("known", "plain") for p in operated.pods(name)}
    operated.cluster.kubectl("scale", "deployment/known", "deployment/plain", "--replicas=2")
    ours, theirs = (
        next(p for p in operated.wait_ready(name, 2) if p["metadata"]["uid"] not in before)
        for name in ("known", "plain")
    )
    late_s = started_s(ours) - started_s(theirs)
    print(f"started after {started_s(ours):.0f} s, without SNAP {started_s(theirs):.0f} s")  # noqa: T201 - figures for who runs it with -s
    return ours, late_s


def one_less(operated: Operated) -> None:
    operated.cluster.kubectl("scale", "deployment/known", "deployment/plain", "--replicas=1")
    for name in ("known", "plain"):
        operated.wait_ready(name, 1)


def cold_and_in_time(operated: Operated) -> dict[str, Any]:
    """Another pod of the workload, which starts cold, not later than without SNAP."""
    for _ in range(MEASURED):
        pod, late_s = one_more(operated)
        assert not was_restored(operated, pod), notes(pod)
        if late_s <= LATE_S:
            return pod
        one_less(operated)
    pytest.fail(f"the last of {MEASURED} pods started {late_s:.0f} s later than without SNAP")


def restart_plane(operated: Operated, change: Callable[[], None] = lambda: None) -> None:
    """Kill the control plane, change something of its, and wait until it is back."""
    operated.plane.kill()
    change()
    operated.plane.start()
    operated.wait(lambda: bool(operated.rest.get("/snaphook/h")["is_running"]), "the hook")


def changing(operated: Operated, statement: str, *values: str) -> Callable[[], None]:
    """Changes what the control plane has stored, while it does not run."""

    def change() -> None:
        with closing(sqlite3.connect(operated.plane.data / "snap.db")) as db, db:
            db.execute(statement, values)

    return change


def wait_agents(operated: Operated) -> None:
    def are_there() -> bool:
        nodes = operated.rest.get("/cluster/status/dev")["nodes"]
        return [(n["status"], n["connected"]) for n in nodes] == [("ready", True)] * 2

    operated.wait(are_there, "the agents")


def test_without_a_registry(operated: Operated) -> None:
    (first,) = operated.pods("known")
    home = first["spec"]["nodeName"]
    operated.cluster.kubectl("cordon", home)  # the other node has nothing cached
    operated.cluster.world.checkpoints.kill()
    try:
        pod = cold_and_in_time(operated)
        assert CHECKPOINT in notes(pod)
        operated.wait_event(pod, "StartedCold", "can't be fetched")
    finally:
        operated.cluster.world.checkpoints.start()
        operated.cluster.kubectl("uncordon", home)
        one_less(operated)


def test_without_an_agent(operated: Operated) -> None:
    for agent in operated.agents.values():
        agent.kill()
    try:
        pod = cold_and_in_time(operated)
        assert CHECKPOINT in notes(pod)
        operated.wait_event(pod, "AgentAway", pod["spec"]["nodeName"])
    finally:
        for agent in operated.agents.values():
            agent.start()
        wait_agents(operated)
        one_less(operated)


def test_without_the_control_plane(operated: Operated) -> None:
    operated.plane.kill()
    try:
        pod = cold_and_in_time(operated)
        assert not {CHECKPOINT, NOT_RESTORED} & notes(pod).keys()
    finally:
        restart_plane(operated)
        wait_agents(operated)
    operated.wait_event(pod, "HookNotAsked")
    one_less(operated)


def test_a_node_that_does_not_fit(operated: Operated) -> None:
    def needs(kernel: str) -> Callable[[], None]:
        return changing(
            operated,
            "UPDATE checkpoints SET fingerprint_json = json_set(fingerprint_json, '$.kernel', ?)",
            kernel,
        )

    kernel = operated.cluster.kubectl("get", "nodes", "-ojsonpath={..kernelVersion}").split()[0]
    restart_plane(operated, needs("99.0"))
    try:
        wait_agents(operated)
        operated.wait_answer("known", lambda pod: NOT_RESTORED in notes(pod), "no checkpoint")
        pod = cold_and_in_time(operated)
        assert CHECKPOINT not in notes(pod)
        assert "no node has what the checkpoint needs" in notes(pod)[NOT_RESTORED]
    finally:
        restart_plane(operated, needs(kernel))
        wait_agents(operated)
        one_less(operated)


def test_nodes_that_fit_are_preferred(operated: Operated) -> None:
    (first,) = operated.pods("known")
    home = first["spec"]["nodeName"]
    away, number = ("node2", 2) if home == "node1" else ("node1", 1)
    old = "UPDATE agents SET facts_json = json_set(facts_json, '$.kernel', '1.0') WHERE node = ?"
    operated.agents[number].kill()  # what it told last is what counts then
    restart_plane(operated, changing(operated, old, away))
    try:
        operated.wait_answer("known", lambda pod: _prefers(pod, home), f"{home} rather")
        pod, _ = one_more(operated)
        rules = pod["spec"]["affinity"]["nodeAffinity"]
        (preferred,) = rules["preferredDuringSchedulingIgnoredDuringExecution"]
        assert f'"values": ["{home}"]' in json.dumps(preferred)
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in rules
        if pod["spec"]["nodeName"] == home:
            operated.wait_restored(pod)
        else:
            assert not was_restored(operated, pod)
    finally:
        operated.agents[number].start()
        wait_agents(operated)
        one_less(operated)


def _prefers(pod: dict[str, Any], node: str) -> bool:
    return f'"values": ["{node}"]' in json.dumps(pod["spec"].get("affinity", {}))


def test_a_hook_can_name_the_image_driver(operated: Operated) -> None:
    """The pod's image becomes the checkpoint's: containerd of this cluster restores such images itself."""
    cluster, rest = operated.cluster, operated.rest
    login = operated.cluster.world.registry_details()
    cluster.kubectl(
        *("create", "secret", "docker-registry", "pull", f"--docker-server={login['url']}"),
        *(f"--docker-username={login['username']}", f"--docker-password={login['password']}"),
    )
    manifest = deployment(cluster, "imaged", 1, 1, command=["sh", "-c", NAMED])
    manifest["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "pull"}]
    cluster.apply(manifest)
    try:
        (first,) = operated.wait_ready("imaged", 1)
        rest.post("/operator/snapwatcher/w/start", {})
        made = operated.wait_checkpoint("w", "imaged")
        rest.post("/operator/snapwatcher/w/stop", {})
        rest.post("/snaphook/h/stop", {})
        rest.post("/snaphook", {"name": "i", "cluster_name": "dev", "driver": "image"})
        rest.post("/snaphook/i/start", {})
        operated.wait_answer("imaged", lambda pod: "@" in _image(pod), "the checkpoint's image")
        cluster.kubectl("scale", "deployment/imaged", "--replicas=2")
        pods = operated.wait_ready("imaged", 2)
        (later,) = [p for p in pods if p["metadata"]["uid"] != first["metadata"]["uid"]]
        assert _image(later).rpartition("@")[0] in made["image"]

        def said() -> list[str]:
            return [cluster.kubectl("logs", p["metadata"]["name"], "--tail=1") for p in pods]

        operated.wait(lambda: all(said()), "a word of both")
        assert len(set(said())) == 1
    finally:
        rest.call("POST", "/operator/snapwatcher/w/stop")
        rest.call("DELETE", "/snaphook/i")
        rest.call("POST", "/snaphook/h/start", {})
        cluster.delete("deployment", "imaged")
        cluster.delete("secret", "pull")


def _image(pod: dict[str, Any]) -> str:
    (container,) = pod["spec"]["containers"]
    return str(container["image"])


def test_a_certificate_that_has_expired(operated: Operated) -> None:
    rest, gateway = operated.rest, operated.cluster.layout.instance.gateway
    with expired_server(operated.plane.data / "hook-tls", gateway) as port:
        rest.post("/snaphook/h/stop", {})
        url = f"https://{gateway}:{port}/expired"
        try:
            rest.post("/snaphook", {"name": "x", "cluster_name": "dev", "webhook_url": url})
            rest.post("/snaphook/x/start", {})
            # pods that are made as soon as a hook is there may not have been its business yet
            asked = "/snaphook/x/test-connectivity"
            operated.wait(lambda: "expired" in json.dumps(rest.get(asked)), "its refusal")
            operated.wait(lambda: is_old(operated, "x"), "API servers that know the hook")
            pod = cold_and_in_time(operated)
            assert not {CHECKPOINT, NOT_RESTORED} & notes(pod).keys()
            operated.wait_event(pod, "HookNotAsked", "certificate")
        finally:
            rest.call("DELETE", "/snaphook/x")
            rest.call("POST", "/snaphook/h/start", {})
            one_less(operated)


def is_old(operated: Operated, hook: str) -> bool:
    found = operated.cluster.get("mutatingwebhookconfiguration", f"snap-{hook}")
    made = datetime.fromisoformat(found["metadata"]["creationTimestamp"])
    return datetime.now(UTC) - made > timedelta(seconds=7)


@contextmanager
def expired_server(folder: Path, address: str) -> Iterator[int]:
    """Something that speaks TLS at ``address`` with a certificate of the hooks' authority that has expired."""
    authority, chain = folder / "ca.pem", folder / "expired.pem"
    ca = x509.load_pem_x509_certificate(authority.read_bytes())
    key = serialization.load_pem_private_key(authority.read_bytes(), None)
    own = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=ca.subject,
        subject_name=own.subject,
        public_key=key.public_key(),  # type: ignore[arg-type]
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=2),
        not_valid_after=now - timedelta(hours=1),
    )
    for extension in own.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, authority)
    with ThreadingHTTPServer((address, 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_checkpoint_that_was_deleted(operated: Operated) -> None:
    """The last of them: it is gone then."""
    made = operated.wait_checkpoint("w", "known")
    pod, _ = one_more(operated)
    operated.wait_restored(pod)  # all is well again after the others
    one_less(operated)
    status, answer = operated.rest.call("DELETE", f"/checkpoint/{made['id']}")
    assert status == 200, answer
    operated.wait_answer("known", lambda pod: NOT_RESTORED in notes(pod), "no checkpoint")
    pod = cold_and_in_time(operated)
    assert CHECKPOINT not in notes(pod)
    assert "there is no checkpoint of this workload" in notes(pod)[NOT_RESTORED]
