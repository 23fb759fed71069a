"""What is asked of an API server reaches it with the stored credential, and each way to fail says which it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed, Retryable, SnapError
from controlplane.kube import access as credentials
from controlplane.kube import client as kube
from controlplane.kube.access import Access
from controlplane.kube.client import KubeClient
from controlplane.kube.clients import KubeClients
from tests.fakes import kube_server
from tests.fakes.jobs import until
from tests.fakes.kube_server import TOKEN, Fault, KubeServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KubeServer]:
    """An API server with TLS that knows one token."""
    async with kube_server.running(tmp_path) as made:
        yield made


@asynccontextmanager
async def connected(access: Access) -> AsyncIterator[KubeClient]:
    """A client for the block."""
    client = await kube.connect(access)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[KubeClient]:
    """A client of something that answers every GET so, for the block."""
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        async with connected(Access("c1", url, token=TOKEN)) as client:
            yield client
    finally:
        await runner.cleanup()


async def test_a_token_opens_it(server: KubeServer) -> None:
    async with connected(Access("c1", server.url, verify_ssl=False, token=TOKEN)) as client:
        assert await client.version() == kube_server.VERSION


async def test_a_kubeconfig_opens_it_and_leaves_no_file(
    server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = _names(tmp_path)
    async with connected(Access("c1", kubeconfig=server.kubeconfig())) as client:
        assert await client.version() == kube_server.VERSION
    assert _names(tmp_path) == before


async def test_a_pods_own_account_is_used_and_its_new_token_too(
    server: KubeServer, tmp_path: Path
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes(server.ca_pem)
    (account / "token").write_text(TOKEN + "\n")
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    access = Access("c1", in_cluster=True, account_dir=account)
    client = KubeClient(access, await credentials.load(access, environ))
    try:
        await client.version()
        (account / "token").write_text("rotated")
        server.tokens = {"rotated"}
        assert await client.version() == kube_server.VERSION
    finally:
        await client.close()


async def test_outside_of_a_cluster_there_is_no_own_account(tmp_path: Path) -> None:
    with pytest.raises(Failed) as failure:
        await credentials.load(Access("c1", in_cluster=True, account_dir=tmp_path), {})
    assert failure.value.details.startswith("unreachable:")


@pytest.mark.parametrize(
    ("change", "details"),
    [
        ({"token": "wrong"}, "unauthorized:"),
        ({"token": "two\nlines"}, "unauthorized:"),
        ({"verify_ssl": True}, "certificate:"),
        ({"server": "https://127.0.0.1:9"}, "unreachable:"),
        ({"kubeconfig": "clusters: 5"}, "unreachable:"),
    ],
    ids=["token", "no-token", "certificate", "port", "kubeconfig"],
)
async def test_each_way_to_fail_is_told(
    server: KubeServer, change: dict[str, object], details: str
) -> None:
    right = Access("c1", server.url, verify_ssl=False, token=TOKEN)
    access = replace(right, **change)  # type: ignore[arg-type]
    with pytest.raises(SnapError) as failure:
        async with connected(access) as client:
            await client.version()
    assert failure.value.code == CLUSTER_CONNECTION_FAILED
    assert failure.value.details.startswith(details)
    assert TOKEN not in f"{failure.value.message} {failure.value.details} {access!r}"
    assert "0x" not in failure.value.details


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, Retryable), (500, Retryable), (503, Retryable), (403, Failed)],
)
async def test_what_may_work_later_says_when(
    server: KubeServer, status: int, kind: type[SnapError]
) -> None:
    server.fail(Fault(status, after_s=7))
    async with connected(server.access()) as client:
        with pytest.raises(kind) as failure:
            await client.get("/api/v1/pods")
        assert failure.value.code == CLUSTER_CONNECTION_FAILED
        if isinstance(failure.value, Retryable):
            assert failure.value.after_s == 7
        assert (await client.get("/api/v1/pods"))["items"] == []


async def test_a_server_that_is_silent_holds_nobody_up(server: KubeServer) -> None:
    server.fail(Fault())
    async with connected(server.access()) as client:
        with pytest.raises(Retryable) as failure:
            await client.get("/api/v1/pods", timeout_s=0.2)
    assert failure.value.details.startswith("unreachable:")


@pytest.mark.parametrize("kind", ["moved", "page"])
async def test_what_is_no_api_server_is_refused(kind: str) -> None:
    elsewhere: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        elsewhere.append(request.path)
        if kind == "moved":
            raise web.HTTPFound("/elsewhere")
        return web.Response(text="<html>", content_type="text/html")

    async with answering(answer) as client:
        with pytest.raises(Failed) as failure:
            await client.get("/version")
    assert failure.value.details.startswith("unreachable:")
    assert "/elsewhere" not in elsewhere


async def test_a_server_that_dies_while_it_answers_is_told_in_plain_words() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        begun = web.StreamResponse(headers={"Content-Type": "application/json"})
        begun.enable_chunked_encoding()
        await begun.prepare(request)
        await begun.write(b'{"items": [')
        assert request.transport is not None
        request.transport.close()
        return begun

    async with answering(answer) as client:
        with pytest.raises(Retryable) as failure:
            await client.get("/api/v1/pods")
    assert failure.value.details == "unreachable: its answer ended in the middle"


async def test_one_client_is_kept_until_what_is_stored_changes(server: KubeServer) -> None:
    stored = server.access()

    async def access(_cluster: str) -> Access:
        return stored

    clients = KubeClients(access)
    try:
        first = await clients.of("c1")
        assert await clients.of("c1") is first
        waiting = asyncio.create_task(_silent_get(server, first))
        await until(lambda: server.asked["GET /api/v1/pods"] > 0)
        stored = replace(stored, verify_ssl=False)
        second = await clients.of("c1")
        assert second is not first
        with pytest.raises(Retryable):  # what ran on the old credential is over
            await waiting
        assert await second.version() == kube_server.VERSION
    finally:
        await clients.close()


async def _silent_get(server: KubeServer, client: KubeClient) -> None:
    server.fail(Fault(matches=lambda request: request.path == "/api/v1/pods"))
    await client.get("/api/v1/pods")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
