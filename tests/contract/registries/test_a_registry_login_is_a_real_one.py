"""Logging in to a registry that speaks the distribution API, by basic and by bearer; three ways to fail."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controlplane.errors import REGISTRY_CONNECTION_FAILED, Failed
from controlplane.registries.client import RegistryClient
from controlplane.store.records import RegistryAccess
from tests.fakes import tls

AUTH = "Basic " + base64.b64encode(b"pusher:s3cret").decode()
PASSWORD = "s3cret"
TOKEN = "t0ken"
DIGEST = "sha256:" + "ab" * 32


class Registry:
    """As much of a registry as a login and a deletion meet."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.host = ""
        self.scheme = "http"
        self.realm: str | None = None
        self.scopes: list[str] = []
        self.deleted: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/", self._base)
        app.router.add_get("/token", self._token)
        app.router.add_delete("/v2/{repository:.+}/manifests/{digest}", self._delete)
        return app

    def _is_known(self, request: web.Request) -> bool:
        wanted = {"basic": AUTH, "bearer": f"Bearer {TOKEN}", "open": None}[self.kind]
        return wanted is None or request.headers.get("Authorization") == wanted

    async def _base(self, request: web.Request) -> web.Response:
        if self._is_known(request):
            return web.json_response({})
        realm = self.realm or f"{self.scheme}://{self.host}/token"
        asked = (
            f'Bearer realm="{realm}",service="reg"' if self.kind == "bearer" else "Basic realm=x"
        )
        return web.Response(status=401, headers={"WWW-Authenticate": asked})

    async def _token(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != AUTH:
            return web.Response(status=401)
        self.scopes.append(request.query.get("scope", ""))
        return web.json_response({"token": TOKEN})

    async def _delete(self, request: web.Request) -> web.Response:
        if not self._is_known(request):
            return web.Response(status=401)
        self.deleted.append(request.path)
        return web.Response(status=202 if len(self.deleted) == 1 else 404)


@asynccontextmanager
async def serving(registry: Registry, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    runner = web.AppRunner(registry.app())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        registry.host = f"127.0.0.1:{runner.addresses[0][1]}"
        registry.scheme = "https" if context else "http"
        yield
    finally:
        await runner.cleanup()


def _access(registry: Registry, password: str = PASSWORD, **more: Any) -> RegistryAccess:
    given: dict[str, Any] = {"username": "pusher", "plain_http": registry.scheme == "http"}
    return RegistryAccess(host=registry.host, password=password, **(given | more))


@pytest.mark.parametrize("kind", ["basic", "bearer", "open"])
async def test_good_credentials_log_in(kind: str) -> None:
    registry = Registry(kind)
    async with serving(registry):
        await RegistryClient(_access(registry)).login()


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("username", ["pusher", ""])
async def test_wrong_credentials_are_told_apart(kind: str, username: str) -> None:
    registry = Registry(kind)
    async with serving(registry):
        with pytest.raises(Failed) as failed:
            await RegistryClient(_access(registry, "wr0ng", username=username)).login()
    assert failed.value.code == REGISTRY_CONNECTION_FAILED
    assert failed.value.details.startswith("unauthorized:")
    assert "wr0ng" not in failed.value.message + failed.value.details


async def test_a_registry_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Failed) as failed:
        await RegistryClient(RegistryAccess(host=f"127.0.0.1:{port}", plain_http=True)).login()
    assert failed.value.details.startswith("unreachable:")


async def test_something_else_than_a_registry_is_unreachable() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        with pytest.raises(Failed) as failed:
            await RegistryClient(RegistryAccess(host=host, plain_http=True)).login()
    finally:
        await runner.cleanup()
    assert failed.value.details.startswith("unreachable:")


async def test_a_certificate_counts_unless_told_otherwise(tmp_path: Path) -> None:
    registry = Registry("basic")
    made = tls.make()
    (tmp_path / "leaf.pem").write_bytes(made.leaf + made.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem")
    async with serving(registry, context):
        with pytest.raises(Failed) as failed:
            await RegistryClient(_access(registry)).login()
        assert failed.value.details.startswith("certificate:")
        await RegistryClient(_access(registry, ca_pem=made.ca.decode())).login()
        await RegistryClient(_access(registry, verify_ssl=False)).login()


async def test_credentials_go_to_no_token_service_elsewhere() -> None:
    registry = Registry("bearer")
    registry.realm = "http://evil.example/token"
    async with serving(registry):
        with pytest.raises(Failed) as failed:
            await RegistryClient(_access(registry)).login()
    assert failed.value.details.startswith("unauthorized: its token service is on evil.example")


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_a_manifest_is_deleted_and_gone_is_no_error(kind: str) -> None:
    registry = Registry(kind)
    async with serving(registry):
        client = RegistryClient(_access(registry))
        for _ in range(2):
            await client.delete_manifest("team/snap", DIGEST)
    assert registry.deleted == [f"/v2/team/snap/manifests/{DIGEST}"] * 2
    if kind == "bearer":
        assert set(registry.scopes) == {"repository:team/snap:pull,delete"}


@pytest.mark.parametrize("ca_pem", ["no PEM", "¡no ASCII!"])
async def test_a_ca_that_can_not_be_read_is_told(ca_pem: str) -> None:
    access = RegistryAccess(host="registry.test", verify_ssl=True, ca_pem=ca_pem)
    with pytest.raises(Failed) as failure:
        await RegistryClient(access).login()
    assert failure.value.details.startswith("certificate:")
