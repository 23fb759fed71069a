"""A real checkpoint's archive: downloaded, uploaded again, pushed by a node, restored once it is shared."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.devnode.pods import Pods
from deploy.devnode.rest import Rest
from deploy.devnode.world import CLUSTER, REGISTRY, Deployment
from dev_tools.workloads import WORKLOADS
from tests.integration.restoring import wait_for

pytestmark = pytest.mark.node
WORKLOAD = WORKLOADS[0]


def _download(rest: Rest, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    link = http.client.HTTPConnection(urlsplit(rest.url).netloc, timeout=120)
    try:
        link.request("GET", path, headers={"Authorization": f"Bearer {rest.token}", **headers})
        answer = link.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        link.close()


def _upload(rest: Rest, pod_name: str, content: bytes) -> Any:
    """As ``curl -F file=@…`` does."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="c.tar"\r\n\r\n'
    body = head + content + b"\r\n--b--\r\n"
    link = http.client.HTTPConnection(urlsplit(rest.url).netloc, timeout=120)
    kind = "multipart/form-data; boundary=b"
    sent = {"Authorization": f"Bearer {rest.token}", "Content-Type": kind}
    try:
        link.request("POST", f"/checkpoint/upload/{pod_name}", body, sent)
        answer = link.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())
    finally:
        link.close()


def test_archive_goes_round_and_its_program_goes_on(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    rest, spec = deployed.rest, WORKLOAD.spec
    original = pods1.run(spec)
    noted = WORKLOAD.note(pods1, original)
    made = rest.post(
        "/checkpoint/kubelet/checkpoint",
        {
            "pod_name": spec.name,
            "namespace": spec.namespace,
            "cluster": CLUSTER,
            "node_name": original.node.name,
        },
    )
    path = f"/checkpoint/download/{spec.name}/{made['filename']}"
    status, headers, whole = _download(rest, path)
    assert status == 200

    def hashed() -> Any:  # in the background
        known = rest.get(f"/checkpoint/{made['checkpoint_id']}")
        return known if known["sha256"] else None

    again = wait_for(hashed)
    assert again["sha256"] == hashlib.sha256(whole).hexdigest()
    half = len(whole) // 2
    status, _, rest_of_it = _download(
        rest, path, Range=f"bytes={half}-", **{"If-Range": headers["ETag"]}
    )
    assert (status, rest_of_it) == (206, whole[half:])

    uploaded = _upload(rest, spec.name, whole)
    assert uploaded["sha256"] == again["sha256"]
    assert uploaded["namespace"] == spec.namespace
    assert uploaded["container_name"] == spec.container
    pushed = rest.post(
        "/registry/create_and_push_checkpoint_container",
        {"checkpoint_name": uploaded["filename"], "checkpoint_config_name": REGISTRY},
    )
    for agent in deployed.agents.values():  # the archive left the node after the push
        parts = agent.node.host_path(f"/var/lib/snap/checkpoints/{uploaded['checkpoint_id']}")
        wait_for(lambda: not parts.exists())  # noqa: B023 - it is waited for here

    repository = pushed["image"].rpartition(":")[0]
    wanted = {spec.container: f"{repository}@{pushed['image_digest']}"}
    annotations = {"snap.weaversoft.io/checkpoint": json.dumps(wanted)}
    asking = replace(spec, handler="snap", annotations=annotations)
    pods1.remove_all()
    cold = pods2.run(asking)
    mine = _outcomes(deployed, cold.container_id)
    assert mine[-1]["action"] == "cold"
    pods2.remove_all()

    rest.post(f"/checkpoint/{uploaded['checkpoint_id']}/share", {"namespaces": [spec.namespace]})
    restored = pods2.run(asking)
    WORKLOAD.prove(pods2, restored, noted)


def _outcomes(deployed: Deployment, container_id: str) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        known = deployed.agents[2].restores()
        return [one for one in known if one["container_id"] == container_id]

    return wait_for(found)  # type: ignore[no-any-return]


def test_archive_is_rebuilt_by_another_node(deployed: Deployment, pods1: Pods) -> None:
    rest, spec = deployed.rest, WORKLOAD.spec
    original = pods1.run(spec)
    made = rest.post(
        "/checkpoint/kubelet/checkpoint-and-push",
        {
            "pod_name": spec.name,
            "namespace": spec.namespace,
            "cluster": CLUSTER,
            "node_name": original.node.name,
            "image_name": "rebuilt",
            "tag": "t1",
        },
    )
    path = f"/checkpoint/download/{spec.name}/{made['filename']}"
    _, there, whole = _download(rest, path)
    first, second = deployed.agents[1], deployed.agents[2]
    first.stop()
    try:
        wait_for(lambda: first.node.name not in _connected(rest))
        status, headers, content = _download(rest, path)
        assert status == 200, content
        assert headers["ETag"] != there["ETag"]
        assert len(content) == int(headers["Content-Length"])
        assert _members(content) == _members(whole)
        half = len(content) // 2
        asked = {"Range": f"bytes={half}-", "If-Range": headers["ETag"]}
        assert _download(rest, path, **asked)[2] == content[half:]
        second.stop()
        wait_for(lambda: not _connected(rest))
        status, _, refusal = _download(rest, path)
        assert (status, json.loads(refusal)["code"]) == (503, "AGENT_UNAVAILABLE")
        assert "could fetch" in json.loads(refusal)["error"]
    finally:
        for agent in (first, second):
            if not agent.is_running:
                agent.start()
        deployed.wait_connected()


def _connected(rest: Rest) -> list[str]:
    """The nodes whose agents have a session, in the control plane's eyes."""
    nodes = rest.get(f"/cluster/status/{CLUSTER}")["nodes"]
    return [one["name"] for one in nodes if one["connected"]]


def _members(content: bytes) -> dict[str, str]:
    """Every file's hash; of pagemaps only that they are there: a node may cut their runs otherwise."""
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        return {
            one.name: "" if "/pagemap-" in one.name else hashlib.sha256(file.read()).hexdigest()
            for one in members
            if (file := members.extractfile(one)) is not None
        }
