"""Token services and redirects, against small servers on the loopback that note what they are told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from agent.errors import REGISTRY_CONNECTION_FAILED, Refused, Retryable
from agent.formats import digest
from agent.formats.jobs import RegistryAccess
from agent.image import manifest
from agent.image.registry import Registry

CONTENT = b"layer" * 1000
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()


@dataclass
class Servers:
    """A registry that asks for tokens, its token service, and a storage elsewhere.

    Attributes:
        realm_host: where the registry says its token service is.
        seen: (path, Authorization) of every request, in order.
        refuse: status of everything the registry is asked, when not 0.
    """

    port: int = 0
    realm_host: str = "127.0.0.1"
    storage_url: str = ""
    refuse: int = 0
    token: str = "t1"
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def access(self) -> RegistryAccess:
        return RegistryAccess(f"127.0.0.1:{self.port}", "user", "pass", plain_http=True)

    async def registry(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.seen.append((request.path, authorization))
        if self.refuse:
            return web.Response(status=self.refuse, headers={"Retry-After": "7"})
        if authorization != f"Bearer {self.token}":
            realm = f"http://{self.realm_host}:{self.port}/token"
            challenge = f'Bearer realm="{realm}",service="reg"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if "/blobs/" in request.path:
            raise web.HTTPTemporaryRedirect(self.storage_url)
        return web.Response()

    async def tokens(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, request.headers.get("Authorization", "")))
        if request.headers.get("Authorization") != BASIC:
            return web.Response(status=401)
        return web.json_response({"token": self.token, "expires_in": 300})

    async def storage(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, request.headers.get("Authorization", "")))
        return web.Response(body=CONTENT)  # Range is not known here


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    made = Servers()
    elsewhere, own = web.Application(), web.Application()
    elsewhere.router.add_get("/stored", made.storage)
    own.router.add_get("/token", made.tokens)
    own.router.add_route("*", "/v2/{rest:.*}", made.registry)
    async with serving(elsewhere) as other, serving(own) as made.port:
        made.storage_url = f"http://127.0.0.1:{other}/stored"
        yield made


async def test_token_is_asked_for_once_per_scope_and_renewed_when_refused(servers: Servers) -> None:
    async with Registry.connect(servers.access) as client:
        await client.ping()
        await client.ping()
        assert [path for path, _ in servers.seen].count("/token?service=reg") == 1
        servers.token = "t2"  # the old one ended
        await client.ping()
    assert servers.seen[-1] == ("/v2/", "Bearer t2")


async def test_redirect_elsewhere_goes_without_credentials_and_range_may_be_unknown(
    servers: Servers,
) -> None:
    wanted = digest.of(CONTENT)
    async with Registry.connect(servers.access) as client:
        found = bytearray()
        await client.blob("a/b", wanted, found.extend, offset=100)
    assert found == CONTENT[100:]
    assert servers.seen[-1] == ("/stored", "")
    assert any("scope=repository:a/b:pull" in path for path, _ in servers.seen)


async def test_wrong_password_is_the_token_services_word(servers: Servers) -> None:
    access = RegistryAccess(f"127.0.0.1:{servers.port}", "user", "wrong", plain_http=True)
    async with Registry.connect(access) as client:
        with pytest.raises(Refused) as failed:
            await client.ping()
    assert failed.value.code == REGISTRY_CONNECTION_FAILED
    assert failed.value.details.startswith("unauthorized:")


async def test_password_goes_to_no_foreign_token_service(servers: Servers) -> None:
    servers.realm_host = "localhost"
    async with Registry.connect(servers.access) as client:
        with pytest.raises(Refused) as failed:
            await client.ping()
    assert failed.value.details.startswith("unauthorized:")
    assert BASIC not in [authorization for _, authorization in servers.seen]
    async with Registry.connect(servers.access, allowed_realms=["localhost"]) as client:
        await client.ping()


@pytest.mark.parametrize("status", [429, 500, 503, 507])
async def test_registry_that_is_busy_may_be_asked_again(servers: Servers, status: int) -> None:
    servers.refuse = status
    async with Registry.connect(servers.access) as client:
        with pytest.raises(Retryable) as failed:
            await client.manifest("a", digest.of(b"x"))
    assert failed.value.after_s == 7
    assert failed.value.details.startswith(f"unreachable: HTTP {status}")


async def test_manifest_with_other_bytes_is_refused() -> None:
    async def lie(_: web.Request) -> web.Response:
        return web.Response(body=b"{}", content_type=manifest.MANIFEST_TYPE)

    app = web.Application()
    app.router.add_get("/v2/{rest:.*}", lie)
    async with serving(app) as port:
        access = RegistryAccess(f"127.0.0.1:{port}", plain_http=True)
        async with Registry.connect(access) as client:
            with pytest.raises(Refused):
                await client.manifest("a", digest.of(b"x"))
