"""Secrets that went in are in no file, no log, no answer, no argv and no environment of the processes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.fakes.api_process import PASSWORD, ApiProcess, running
from tests.fakes.node_agent import FakeAgent, pod

MARK: Final = "c4nary"
KUBECONFIG: Final = {
    "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": f"{MARK}-kubeconfig-token"}}],
}
ENCODED: Final = base64.b64encode(json.dumps(KUBECONFIG).encode()).decode()
PLANTED: Final[tuple[tuple[str, str, Mapping[str, Any]], ...]] = (
    (
        "POST",
        "/config/registry/create",
        {"name": "r", "url": "http://127.0.0.1:1", "username": "u", "password": f"{MARK}-registry"},
    ),
    ("PUT", "/config/registry/update", {"name": "r", "password": f"{MARK}-registry-changed"}),
    ("PUT", "/config/registry/update", {"name": "r", "url": "::", "password": f"{MARK}-refused"}),
    ("POST", "/registry/login", {"registry_config_name": "r"}),
    ("POST", "/config/clusters/create", {"name": "k", "kubeconfig_content": ENCODED}),
    (
        "POST",
        "/config/clusters/create",
        {"name": "t", "api_server_url": "https://127.0.0.1:1", "token": f"{MARK}-cluster-token"},
    ),
    (
        "POST",
        "/config/user/create",
        {"username": "u", "password": f"{MARK}-user", "role": "viewer"},
    ),
    ("POST", "/config/user/login", {"username": "u", "password": f"{MARK}-user-wrong"}),
    ("PUT", "/config/user/update", {"username": "u", "password": f"{MARK}-user-changed"}),
    ("POST", "/config/secret/create", {"name": "s", "api_key": {"k": f"{MARK}-api-key"}}),
    (
        "POST",
        "/automation/trigger",
        {
            "cluster_name": "t",
            "namespace": "default",
            "pod_name": "app",
            "registry": "127.0.0.1:1",
            "username": "u",
            "password": f"{MARK}-automation",
        },
    ),
)
READ: Final = (
    "/config/registry/list",
    "/config/clusters/list",
    "/config/cluster/list",
    "/config/user/list",
    "/config/secret/list",
    "/checkpoint/list",
    "/cluster/statistics",
    "/cluster/status/dev",
    "/jobs",
    "/audit",
    "/metrics",
    "/ready",
    "/openapi.json",
)


async def test_secrets_are_in_no_file_log_answer_or_process(tmp_path: Path) -> None:
    first_password = tmp_path / "outside" / "password"
    first_password.parent.mkdir()
    first_password.write_text(PASSWORD)
    settings = {
        "SNAP_ADMIN_PASSWORD": "",
        "SNAP_ADMIN_PASSWORD_FILE": str(first_password),
        "SNAP_LOG_LEVEL": "debug",
    }
    async with running(tmp_path / "data", **settings) as api:
        secrets = {PASSWORD, MARK, ENCODED, api.token}
        answers: list[tuple[str, bytes]] = []
        for method, path, body in PLANTED:
            answers.append((path, await _send(api, method, path, body)))
        place = await api.set_up()
        secrets |= {place.token, "push-secret"}
        agent = FakeAgent(place, pods={("default", "app"): pod("app", "default")})
        agent.obedient = True
        async with agent.join():
            made = {"pod_name": "app", "namespace": "default"}
            path = "/checkpoint/kubelet/checkpoint-and-push"
            answers.append((path, await _send(api, "POST", path, made)))
        answers += [(path, (await api.read(path))[2]) for path in READ]
        secrets |= {word.decode() for word in await _sealed_words(api)}
        for path, content in answers:
            for secret in secrets:
                assert secret.encode() not in content, f"{path} answers a secret"
        await asyncio.to_thread(_search_processes, api.pid, secrets)
        await asyncio.to_thread(
            _search_files, tmp_path, secrets
        )  # database and log as they are now
        assert await api.stop() == 0
        await asyncio.to_thread(_search_files, tmp_path, secrets)


async def _send(api: ApiProcess, method: str, path: str, body: Mapping[str, Any]) -> bytes:
    """The answer, whatever its status."""
    return (await api.send(method, path, body))[1]


async def _sealed_words(api: ApiProcess) -> list[bytes]:
    """Tokens that were given out by other ways than the answers that are searched."""
    ticket = await api.call("POST", "/ws/ticket")
    return [ticket["ticket"].encode()]


def _search_processes(pid: int, secrets: set[str]) -> None:
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        for kind in ("cmdline", "environ"):
            content = Path(f"/proc/{one.pid}/{kind}").read_bytes()
            for secret in secrets:
                assert secret.encode() not in content, f"{kind} of {one.name()} holds a secret"


def _search_files(folder: Path, secrets: set[str]) -> None:
    names = {file.name for file in _files(folder)}
    assert {"snap.db", "api.log"} <= names
    for file in _files(folder):
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, f"{file.name} holds a secret"


def _files(folder: Path) -> Iterator[Path]:
    """All files but the one that the administrator's password was read from."""
    return (f for f in folder.rglob("*") if f.is_file() and f.parent.name != "outside")


@pytest.mark.parametrize("bad", ["{", "[" * 40_000], ids=["broken", "deep"])
async def test_a_body_that_can_not_be_read_is_not_logged(tmp_path: Path, bad: str) -> None:
    async with running(tmp_path / "data", SNAP_LOG_LEVEL="debug") as api:
        body = f'{{"password": "{MARK}", "name": {bad}'
        status, content = await api.send("POST", "/config/registry/create", raw=body.encode())
        assert status == 400
        assert MARK.encode() not in content
    assert MARK not in (tmp_path / "api.log").read_text()
