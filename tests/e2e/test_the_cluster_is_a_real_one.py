"""The cluster itself: nodes, networks between pods, what kubectl shows of them, and who may do what."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.devcluster.cluster import Cluster, KubectlFailed

pytestmark = pytest.mark.cluster
SERVE = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nserved by %s\\n' \"$HOSTNAME\" | nc -l -p 8080; done"
AUDIENCE = "snap-agent"


def a_pod(cluster: Cluster, name: str, node: int, *command: str) -> dict[str, Any]:
    container = {"name": "app", "image": f"{cluster.world.base.host}/counter:latest"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": f"node{node}",
            "terminationGracePeriodSeconds": 1,
            "containers": [container | ({"command": list(command)} if command else {})],
        },
    }


def kubelet_says(cluster: Cluster, method: str, path: str, token: str) -> tuple[int, str]:
    """Status and body of a request to the kubelet of node 1, whose certificate must be the cluster's."""
    context = ssl.create_default_context(cafile=str(cluster.layout.folder / "ca.crt"))
    link = http.client.HTTPSConnection(cluster.node(1).address, 10250, timeout=60, context=context)
    try:
        link.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = link.getresponse()
        return answer.status, answer.read().decode()
    finally:
        link.close()


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[Cluster]:
    """A server with a service on node 2, and a client on each node."""
    cluster.apply(a_pod(cluster, "server", 2, "sh", "-c", SERVE))
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"selector": {"app": "server"}, "ports": ports}
    kind = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}}
    cluster.apply({**kind, "spec": service})
    for node in (1, 2):
        cluster.apply(a_pod(cluster, f"client{node}", node))
    for name in ("server", "client1", "client2"):
        cluster.wait_pod(name)
    yield cluster
    cluster.delete("service", "server")
    for name in ("server", "client1", "client2"):
        cluster.delete("pod", name)


def test_both_nodes_are_of_the_wanted_versions(cluster: Cluster) -> None:
    for name in ("node1", "node2"):
        seen = cluster.get("node", name)["status"]["nodeInfo"]
        assert seen["kubeletVersion"] == "v1.37.2"
        assert seen["containerRuntimeVersion"].startswith("containerd://2.1.9")


@pytest.mark.parametrize("client", ["client1", "client2"])
def test_a_service_answers_on_both_nodes(pods: Cluster, client: str) -> None:
    address = pods.get("service", "server")["spec"]["clusterIP"]
    for host in (address, "server", "server.default.svc.cluster.local"):
        asked = ("exec", client, "--", "wget", "-qO-", f"http://{host}")
        # a rule and a name may come a moment after the pod, and nobody listens between two answers
        pods.wait(lambda: pods.kubectl(*asked) == "served by server\n", f"{host} to answer")  # noqa: B023


def test_this_machine_reaches_services(pods: Cluster) -> None:
    address = pods.get("service", "server")["spec"]["clusterIP"]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}", timeout=10) as answer:
                return bool(answer.read() == b"served by server\n")
        except OSError:  # nobody listens between two answers
            return False

    pods.wait(answers, "the service to answer")


def test_logs_are_shown(pods: Cluster) -> None:
    pods.wait(lambda: "tick 3 " in pods.kubectl("logs", "client1"), "the third tick")


def test_a_pod_reaches_the_api_server_by_its_name_and_its_token(pods: Cluster) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"ls {folder}; wget -qO- --no-check-certificate https://kubernetes.default/version"
    asked = ("exec", "client1", "--", "sh", "-c", script)
    pods.wait(lambda: '"gitVersion": "v1.37.2"' in pods.kubectl(*asked), "the version")
    assert "token" in pods.kubectl(*asked)


def test_a_token_for_an_audience_is_good_for_that_alone(pods: Cluster) -> None:
    token = pods.kubectl("create", "token", "default", f"--audience={AUDIENCE}").strip()

    def review(audience: str) -> dict[str, Any]:
        asked = {"token": token, "audiences": [audience]}
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        text = json.dumps({**kind, "spec": asked})
        found: dict[str, Any] = json.loads(
            pods.kubectl("create", "-f", "-", "-ojson", text_in=text)
        )["status"]
        return found

    assert review(AUDIENCE)["user"]["username"] == "system:serviceaccount:default:default"
    assert not review("another").get("authenticated")


def test_a_service_account_may_do_nothing_unless_it_is_told(cluster: Cluster) -> None:
    with pytest.raises(KubectlFailed, match="forbidden"):
        cluster.kubectl("get", "secrets", "--as=system:serviceaccount:default:default")


def test_a_node_may_not_read_secrets_of_pods_that_it_does_not_run(cluster: Cluster) -> None:
    who = ("--as=system:node:node1", "--as-group=system:nodes")
    cluster.kubectl("create", "secret", "generic", "unused", "--from-literal=a=b")
    try:
        with pytest.raises(KubectlFailed, match="forbidden"):
            cluster.kubectl("get", "secret", "unused", *who)
    finally:
        cluster.delete("secret", "unused")


def test_a_kubelet_wants_to_know_who_asks(cluster: Cluster) -> None:
    assert kubelet_says(cluster, "GET", "/pods", "")[0] == 401


def test_one_verb_is_enough_to_checkpoint_through_the_kubelet(pods: Cluster) -> None:
    pods.kubectl("create", "serviceaccount", "saver")
    pods.kubectl("create", "clusterrole", "saver", "--verb=create", "--resource=nodes/checkpoint")
    subject = "--serviceaccount=default:saver"
    pods.kubectl("create", "clusterrolebinding", "saver", "--clusterrole=saver", subject)
    token = pods.kubectl("create", "token", "saver").strip()
    try:
        assert kubelet_says(pods, "GET", "/pods", token)[0] == 403
        answers: list[tuple[int, str]] = []

        def may_ask() -> (
            bool
        ):  # authorizers hear of a role a little later, and keep a no for a while
            answers.append(kubelet_says(pods, "POST", "/checkpoint/default/client1/app", token))
            return answers[-1][0] != 403

        pods.wait(may_ask, "the right to checkpoint")
        status, answer = answers[-1]
        assert status == 200, answer
        (archive,) = json.loads(answer)["items"]
        members = pods.node(1).run(["tar", "-tf", archive]).stdout.split()
        assert {"checkpoint/inventory.img", "config.dump", "spec.dump"} <= set(members)
        pods.node(1).run(["rm", archive])
    finally:
        for kind in ("clusterrolebinding", "clusterrole", "serviceaccount"):
            pods.delete(kind, "saver")


def test_what_is_killed_comes_back(pods: Cluster) -> None:
    pods.node(1).kill_containerd()
    pods.node(1).run(["pkill", "-9", "-x", "kubelet"])
    for name in ("etcd", "kube-apiserver"):  # an API server that starts without etcd ends
        pods.daemon(name).kill()
        pods.bring_back(name)
        pods.wait(lambda: pods.kubectl("exec", "client1", "--", "true") == "", "exec to work again")
    pods.apply(a_pod(pods, "later", 1))
    pods.wait_pod("later")
    pods.delete("pod", "later")
