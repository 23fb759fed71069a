"""A real registry that takes only signed tokens: login, push and fetch with a token service of its own."""

from __future__ import annotations

import base64
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent import errors as agent_errors
from agent.formats.digest import Digest
from agent.formats.jobs import CheckpointId, Progress, PushSpec
from agent.image.cache import Cache, CacheLimits
from agent.image.push import Pusher
from agent.image.registry import Registry
from controlplane.errors import REGISTRY_CONNECTION_FAILED, Failed
from controlplane.registries.client import RegistryClient
from controlplane.store.records import RegistryAccess
from tests.fakes import criu_dump
from tests.integration.own_registry import PASSWORD, USER, OwnRegistry

SERVICE, ISSUER = "snap-registry", "snap-tokens"
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class TokenService:
    """Signs what is asked for, for the one user (distribution, docs/spec/auth/jwt.md).

    Attributes:
        seen: (scope, Authorization) of every request.
    """

    tls: Path
    port: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        scopes = request.query.getall("scope", [])
        authorization = request.headers.get("Authorization", "")
        self.seen.append((" ".join(scopes), authorization))
        if authorization != LOGIN or request.query.get("service") != SERVICE:
            return web.Response(status=401)
        asked = [scope.split(":") for one in scopes for scope in one.split()]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": [
                {"type": kind, "name": name, "actions": actions.split(",")}
                for kind, name, actions in asked
            ],
        }
        leaf = x509.load_pem_x509_certificate((self.tls / "registry.crt").read_bytes())
        chain = [base64.b64encode(leaf.public_bytes(Encoding.DER)).decode()]
        key = (self.tls / "registry.key").read_text()
        token = jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain})
        return web.json_response({"token": token, "expires_in": 300})


@dataclass
class Both:
    """The registry, and its token service."""

    registry: OwnRegistry
    tokens: TokenService

    def access(self, password: str = PASSWORD) -> RegistryAccess:
        """As the control plane keeps it."""
        own = self.registry
        return RegistryAccess(host=own.host, username=USER, password=password, ca_pem=own.ca_pem)


@pytest.fixture
async def both(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    """Running; the parameter is the host that the realm names."""
    folder = tmp_path / "r"
    registry, tokens = OwnRegistry(folder), TokenService(folder / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls" / "registry.crt", folder / "tls" / "registry.key")
    app = web.Application()
    app.router.add_get("/token", tokens.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        tokens.port = runner.addresses[0][1]
        realm = f"https://{getattr(request, 'param', '127.0.0.1')}:{tokens.port}/token"
        config = folder / "config.yml"
        kept = config.read_text().partition("auth:")[0]
        config.write_text(
            f"{kept}auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, "
            f"rootcertbundle: {folder}/tls/ca.crt}}}}\n"
        )
        registry.start()
        yield Both(registry, tokens)
    finally:
        registry.kill()
        await runner.cleanup()


def silent(_: Progress) -> None:
    """Nobody listens."""


async def test_right_password_logs_in_pushes_and_fetches(both: Both, tmp_path: Path) -> None:
    await RegistryClient(both.access()).login()
    access = both.registry.access
    parts = criu_dump.make_parts(tmp_path / "p", (1 << 20,))
    spec = PushSpec(CheckpointId("c"), access, "team/app", "t1", "zstd")
    pushed = await Pusher().push(parts, spec, silent)
    cache = Cache(tmp_path / "cache", CacheLimits(free_floor_bytes=0))
    await cache.open()
    try:
        image = f"{access.host}/team/app@{pushed.digest}"
        await cache.fetch(image, access, silent)
        folder = await cache.flat(Digest(pushed.digest))
        rewritten = frozenset({"snap.json", "checkpoint/pagemap-1.img"})
        criu_dump.same_tree(parts, folder, without=rewritten)
    finally:
        await cache.close()
    scopes = {scope for scope, _ in both.tokens.seen}
    assert {"repository:team/app:pull,push", "repository:team/app:pull"} <= scopes
    await RegistryClient(both.access()).delete_manifest("team/app", pushed.digest)
    async with Registry.connect(access) as client:
        with pytest.raises(agent_errors.NotFound):
            await client.manifest("team/app", pushed.digest)


async def test_wrong_password_is_unauthorized(both: Both) -> None:
    with pytest.raises(Failed) as failed:
        await RegistryClient(both.access("wrong")).login()
    assert failed.value.code == REGISTRY_CONNECTION_FAILED
    assert failed.value.details.startswith("unauthorized:")
    async with Registry.connect(replace(both.registry.access, password="wrong")) as client:
        with pytest.raises(agent_errors.Refused) as refused:
            await client.ping()
    assert refused.value.code == agent_errors.REGISTRY_CONNECTION_FAILED
    assert refused.value.details.startswith("unauthorized:")


@pytest.mark.parametrize("both", ["localhost"], indirect=True)
async def test_token_service_on_another_host_gets_no_password(both: Both) -> None:
    with pytest.raises(Failed) as failed:
        await RegistryClient(both.access()).login()
    assert failed.value.details.startswith("unauthorized:")
    async with Registry.connect(both.registry.access) as client:
        with pytest.raises(agent_errors.Refused) as refused:
            await client.ping()
    assert refused.value.details.startswith("unauthorized:")
    assert not both.tokens.seen
