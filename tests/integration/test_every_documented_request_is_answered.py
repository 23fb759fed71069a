"""Every documented request and every example, word for word, against real parts; prints endpoint x dialect x result.

Only the host, names and tokens are put in for the documented ones. Registry and cluster are made by the documented
requests themselves; the agent of node 1 joins that cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import pytest

from deploy.devnode import processes
from deploy.devnode.pods import PodSpec
from deploy.devnode.services import ControlPlane
from deploy.devnode.world import Deployment, World
from tests.reference import contract
from tests.reference.contract import Documented

pytestmark = pytest.mark.node

CLUSTER: Final = "production-cluster"
WAIT_S: Final = 180.0
# not served, each for a reason: the placeholder in the chapter on tokens; what deploys the older server's parts
EXEMPT_COMMANDS: Final = ("http://localhost:8000/api/endpoint", "kubectl apply -f SnapApi/")
SETUP: Final = ("POST /config/registry/create", "POST /config/clusters/create")
LAST: Final = ("DELETE /config/clusters/delete", "DELETE /config/registry/delete")
# the reference tells of these after the watchers of its story are stopped; they are asked while there is one
WHILE_WATCHING: Final = ("GET /operator/status", "GET /operator/watchers/status")
# method lines of the reference that have no body there: what a client sends
GIVEN: Final[dict[str, dict[str, Any]]] = {
    "PUT /config/registry/update": {"name": "nexus-registry", "verify_ssl": True},
    "DELETE /config/registry/delete": {"name": "nexus-registry"},
    "PUT /config/clusters/update": {"name": CLUSTER, "registry_name": "nexus-registry"},
    "DELETE /config/clusters/delete": {"name": CLUSTER},
}
# no cluster API is within reach of the nodes here: these say so
REFUSED: Final = {
    "POST /operator/start": "CLUSTER_CONNECTION_FAILED",
    "POST /operator/snapwatcher/{watcher_name}/start": "CLUSTER_CONNECTION_FAILED",
    "POST /snaphook/{name}/start": "CLUSTER_CONNECTION_FAILED",
}


@dataclass
class Result:
    """How one request went."""

    dialect: str
    endpoint: str
    title: str
    problem: str

    def __str__(self) -> str:
        said = self.problem or "as documented"
        return f"{self.dialect}  {self.endpoint:<62} {self.title:<48} {said}"


@dataclass
class Answered:
    """What came back."""

    status: int
    content: Any
    headers: dict[str, str]


@dataclass
class Client:
    """A client of the control plane that says what is documented, with the names put in."""

    plane: ControlPlane
    names: dict[str, str]
    token: str = field(repr=False)
    agent_token: str = field(repr=False)
    results: list[Result] = field(default_factory=list)

    def put_in(self, content: Any) -> Any:
        """``content`` with names and tokens in place of the documented ones."""
        if isinstance(content, str):
            for documented, real in self.names.items():
                content = content.replace(documented, real)
            return content
        if isinstance(content, list):
            return [self.put_in(item) for item in content]
        if isinstance(content, dict):
            return {key: self.put_in(value) for key, value in content.items()}
        return content

    def send(
        self, method: str, path: str, body: bytes | None, token: str, kind: str = "application/json"
    ) -> Answered:
        """One request."""
        link = HTTPConnection(urlsplit(self.plane.url).netloc, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = kind
        with contextlib.closing(link):
            link.request(method, quote(path, safe="/?=&%:"), body, headers)
            answer: HTTPResponse = link.getresponse()
            raw = answer.read()
            told = {name.lower(): value for name, value in answer.getheaders()}
        is_json = told.get("content-type", "").startswith("application/json")
        return Answered(answer.status, json.loads(raw) if is_json else raw, told)

    def ask(self, one: Documented) -> Answered:
        """Send what is documented."""
        path = self.put_in(one.path)
        query = dict.fromkeys(one.query, "") if isinstance(one.query, list) else one.query or {}
        for name in query:
            query[name] = self.put_in(query[name]) or self.names[f"?{name}"]
        if query:
            path += "?" + urlencode(query)
        token = self.agent_token if one.by == "agent" else self.token
        if one.file:
            content = self.files[one.file]
            return self.send(one.method, path, _multipart(content), token, MULTIPART)
        sent = one.body if one.body is not None else GIVEN.get(f"{one.method} {one.path}")
        body = None if sent is None else json.dumps(self.put_in(sent)).encode()
        return self.send(one.method, path, body, token)

    def check(self, one: Documented) -> Answered | None:
        """Send what is documented, compare, and note the result."""
        if one.method == "WS":
            problem = self._follow(one)
            answer = None
        else:
            answer = self.ask(one)
            problem = self._problem(one, answer)
        self.results.append(Result(one.dialect, f"{one.method} {one.path}", one.title, problem))
        return answer

    @property
    def files(self) -> dict[str, bytes]:
        """What is uploaded."""
        return {"key": b"ssh-ed25519 AAAA", "archive": self.archive}

    archive: bytes = field(default=b"", repr=False)

    def _problem(self, one: Documented, answer: Answered) -> str:
        refusal = REFUSED.get(f"{one.method} {one.path}") if one.dialect == "S" else None
        if refusal:
            code = answer.content.get("code") if isinstance(answer.content, dict) else None
            return "" if code == refusal else f"{answer.status} {answer.content}"[:300]
        if answer.status != one.status:
            return f"{answer.status} instead of {one.status}: {str(answer.content)[:200]}"
        missing = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} - set(
            answer.headers
        )
        if missing:
            return f"the headers {sorted(missing)} are missing"
        if one.media not in ("any", answer.headers.get("content-type", "").partition(";")[0]):
            return f"it is {answer.headers.get('content-type')}"
        if one.answer is None:
            return ""
        wrong = list(contract.differences(self.put_in(one.answer), answer.content))
        for path in () if wrong else one.texts:
            wanted = contract.at(self.put_in(one.answer), path)
            if (got := contract.at(answer.content, path)) != wanted:
                wrong.append(f"{path} is {got!r}, not {wanted!r}")
        return "; ".join(wrong[:3])

    def _follow(self, one: Documented) -> str:
        """Open the WebSocket with a token, and see a job's progress."""
        try:
            seen = asyncio.run(self._progress(self.put_in(one.path)))
        except (TimeoutError, aiohttp.ClientError) as problem:
            return repr(problem)
        wanted = one.answer or {"type": "progress", "progress": None, "message": ""}
        return "; ".join(contract.differences(wanted, seen))

    async def _progress(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        body = {"pod_name": "test-app", "namespace": "default"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            asyncio.timeout(60),
            session.ws_connect(self.plane.url + path) as socket,
        ):
            await socket.send_json({"type": "ping"})
            assert (await socket.receive_json())["type"] == "pong"
            checkpoint = f"{self.plane.url}/checkpoint/kubelet/checkpoint"
            async with session.post(checkpoint, json=body) as answer:
                assert answer.status == 200
            return await socket.receive_json()


MULTIPART: Final = "multipart/form-data; boundary=edge"


def _multipart(content: bytes) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n'
    return head + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--edge--\r\n"


def _key(one: Documented) -> str:
    return f"{one.method} {one.path}"


def _by_key() -> dict[str, Documented]:
    return {_key(one): one for one in contract.reference().requests}


@pytest.fixture(scope="module")
def client(world: World, deployed: Deployment) -> Iterator[Client]:
    """A control plane set up by the reference's own requests, with an agent on node 1 and the pod ``test-app``.

    The agent that is there for the other tests rests meanwhile: a node has one.
    """
    deployed.agents[1].stop()
    registry = world.checkpoints
    limits = {"SNAP_RATE_LIMIT_USER": "1000", "SNAP_RATE_LIMIT_ANONYMOUS": "100"}
    plane = world.control_plane("reference", {"SSL_CERT_FILE": str(registry.ca), **limits})
    plane.start()
    rest = plane.login()
    names = {
        "http://localhost:8000": plane.url,
        "https://nexus.company.com": f"https://{registry.host}",
        "worker-node-1": world.node(1).name,
        "<registry host>": registry.host,
    }
    made = Client(plane, names, rest.token, "")
    for key in SETUP:
        # the registry's own user and password are what a real client would have written there
        access = {"username": registry.user, "password": registry.password}
        one = _by_key()[key]
        body = one.body | (access if "password" in one.body else {})
        made.check(replace(one, body=body))
    agent = world.agent(1, plane, CLUSTER)
    agent.enrol(rest)
    made.agent_token = agent.token_file.read_text()
    agent.start()
    pods = world.pods(1)
    try:
        pods.run(PodSpec(name="test-app", image="counter", container="test-app"))
        _wait_connected(Deployment(plane, rest, {1: agent}))
        yield made
    finally:
        pods.remove_all()
        agent.stop()
        plane.stop()
        deployed.agents[1].start()
        deployed.wait_connected(1)


def _wait_connected(deployment: Deployment) -> None:
    rest = deployment.rest

    def ready() -> bool:
        status, answer = rest.call("GET", f"/cluster/status/{CLUSTER}")
        return status == 200 and any(n["status"] == "ready" for n in answer["nodes"])

    processes.wait_until(ready, "the agent's connection", timeout_s=120)


def test_every_documented_request_is_answered(
    client: Client, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    access = {"username": world.checkpoints.user, "password": world.checkpoints.password}
    _ask_reference(client, access)
    _ask_examples(client)
    _ask_dialect_o(client, access)
    _check_pods(client)
    _check_node(client)
    for key in LAST:
        client.check(_by_key()[key])
    with capsys.disabled():
        print("\n" + "\n".join(str(result) for result in client.results))  # noqa: T201 - the table
    asked = {(r.dialect, r.endpoint) for r in client.results}
    documented = {("S", _key(one)) for one in contract.reference().requests}
    documented |= {("O", _key(one)) for one in contract.dialect_o()}
    assert documented <= asked
    assert [str(result) for result in client.results if result.problem] == []


def _ask_reference(client: Client, access: dict[str, str]) -> None:
    client.names |= {
        "?pod_name": "test-app",
        "?node_name": client.names["worker-node-1"],
        "?container_name": "test-app",
        "?checkpoint_config_name": "nexus-registry",
        "{cluster_name}": CLUSTER,
        "{watcher_name}": "production-watcher",
        "{pod_name}": "test-app",
        "{name}": "production-snaphook",
    }
    for one in contract.reference().requests:
        key = _key(one)
        if key in (*SETUP, *LAST, *WHILE_WATCHING):
            continue
        asked = one
        if key in ("POST /config/user/create", "POST /config/user/login"):
            # the first user is admin already, with another password
            user = {"username": "second-admin"}
            answer = one.answer and {**one.answer, "user": {**one.answer["user"], **user}}
            asked = replace(one, body=one.body | user, answer=answer)
        elif key == "POST /automation/trigger":
            asked = replace(one, body=one.body | access)
        elif "/download/" in key:
            asked = replace(one, media="application/octet-stream")
        answer = client.check(asked)
        if key == "POST /operator/snapwatcher":
            for question in WHILE_WATCHING:
                client.check(_by_key()[question])
        if key == "POST /checkpoint/kubelet/checkpoint" and answer and answer.status == 200:
            _remember(client, answer.content["checkpoint_path"])


def _remember(client: Client, path: str) -> None:
    """Put this checkpoint's names in from now on."""
    filename = path.rpartition("/")[2]
    client.names["/app/checkpoints/test-app-12345.tar"] = path
    client.names["{filename}"] = filename
    client.names["<checkpoint>"] = filename.removesuffix(".tar")
    download = client.send("GET", f"/checkpoint/download/test-app/{filename}", None, client.token)
    if download.status == 200:
        client.archive = download.content


def _ask_examples(client: Client) -> None:
    """Run every command of the examples with the shell, as it is written."""
    for example in contract.reference().examples:
        kept = [
            line
            for line in example["shell"].splitlines()
            if not any(exempt in line for exempt in EXEMPT_COMMANDS)
        ]
        script = client.put_in("\n".join(kept)).replace("curl -X", "curl -sS -X")
        commands = len(re.findall(r"\bcurl\b", script))
        if not commands:
            continue
        # each answer on a line of its own, the one that the example keeps too
        script = script.replace(
            'Authorization: Bearer $TOKEN"', 'Authorization: Bearer $TOKEN" -w "\\n"'
        )
        script += '\necho "$CHECKPOINT_RESPONSE"\n'
        done = subprocess.run(
            ["bash", "-euc", f"CHECKPOINT_RESPONSE=\n{script}"],
            env={"TOKEN": client.token, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        good = [a for a in answers if a.get("success") is True]
        problem = (
            "" if done.returncode == 0 and len(good) == commands else done.stdout + done.stderr
        )
        client.results.append(Result("S", "example", example["title"], problem[:500]))


def _ask_dialect_o(client: Client, access: dict[str, str]) -> None:
    for one in contract.dialect_o():
        asked = one
        if one.path == "/automation/trigger":
            asked = replace(one, body=one.body | access)
        if "kube_api_address" in (one.body or {}):
            # the cluster is found by the address of its API, once it has one
            client.send(
                "PUT",
                "/config/cluster/update",
                json.dumps(
                    {"name": CLUSTER, "kube_api_url": one.body["kube_api_address"], "token": "t"}
                ).encode(),
                client.token,
            )
        client.check(asked)


def _check_pods(client: Client) -> None:
    """Pods are those that run, for the list and for the totals."""
    listed = client.send("GET", "/pod/list", None, client.token)
    pods = {p["metadata"]["name"]: p for p in json.loads(listed.content["pods"])["items"]}
    app = pods["test-app"]
    assert app["metadata"]["namespace"] == "default"
    assert app["spec"]["nodeName"] == client.names["worker-node-1"]
    assert app["spec"]["containers"][0]["name"] == "test-app"
    totals = client.send("GET", "/cluster/statistics", None, client.token).content
    assert totals["total_pods"] == len(pods)


def _check_node(client: Client) -> None:
    """A node fetches a pushed image and is prepared when told to; a cluster that is away is told of."""
    listed = client.send("GET", "/checkpoint/list", None, client.token).content["checkpoints"]
    pushed = next(one for one in listed if one["image"])
    node = client.names["worker-node-1"]
    wanted = json.dumps({"nodes": [node]}).encode()
    path = f"/checkpoint/{pushed['id']}"
    brought = client.send("POST", f"{path}/prefetch", wanted, client.token)
    assert (brought.status, brought.content["success"]) == (200, True), brought.content
    restored = client.send("POST", f"{path}/restore", b"{}", client.token)
    assert (restored.status, restored.content["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    prepared = client.send("POST", f"/cluster/nodes/{node}/prepare", b"{}", client.token)
    assert (prepared.status, prepared.content["success"]) == (200, True), prepared.content
    reset = f"/cluster/{CLUSTER}/nodes/{node}/reset-identity"
    assert client.send("POST", reset, None, client.token).status == 200
    assert client.send("POST", reset, None, client.token).content["code"] == "NODE_NOT_FOUND"


def test_errors_have_the_documented_form(client: Client) -> None:
    reference = contract.reference()
    create = next(r for r in reference.requests if r.path == "/checkpoint/kubelet/checkpoint")
    viewer = {"username": "reader", "password": "securepassword", "role": "viewer"}
    client.send("POST", "/config/user/create", json.dumps(viewer).encode(), client.token)
    login = client.send("POST", "/config/user/login", json.dumps(viewer).encode(), "")
    away = {"name": "away", "url": "https://127.0.0.1:9"}
    client.send("POST", "/config/registry/create", json.dumps(away).encode(), client.token)
    asked = {
        "AUTHENTICATION_FAILED": ("GET", "/checkpoint/list", None, ""),
        "CLUSTER_NOT_FOUND": ("GET", "/cluster/status/nowhere", None, client.token),
        "REGISTRY_CONNECTION_FAILED": (
            "POST",
            "/registry/login",
            b'{"registry_config_name": "away"}',
            client.token,
        ),
        "PERMISSION_DENIED": (
            "POST",
            create.path,
            json.dumps(create.body).encode(),
            login.content["token"],
        ),
        "VALIDATION_ERROR": ("POST", create.path, b"{}", client.token),
    }
    for code, (method, path, body, token) in asked.items():
        answer = client.send(method, path, body, token)
        assert list(contract.differences(dict(reference.error), answer.content)) == []
        assert (answer.content["code"], answer.content["success"]) == (code, False)
    # the other one needs a dump that fails: tests of the checkpoint have it
    assert set(reference.error_codes) - set(asked) == {"CHECKPOINT_FAILED"}


def test_rates_are_limited_as_documented(client: Client) -> None:
    limits = contract.reference().rate_limits
    for token, limit in ((client.token, "user_per_hour"), ("", "anonymous_per_hour")):
        answer = client.send("GET", "/cluster/statistics", None, token)
        assert {name.lower() for name in limits["headers"]} <= set(answer.headers)
        assert int(answer.headers["x-ratelimit-limit"]) == limits[limit]
