"""Who may join: the token's cluster, the node's own key, one live session; over real TLS."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes import tls
from tests.fakes.api_process import running, until
from tests.fakes.node_agent import FakeAgent, Place


async def refusal(agent: FakeAgent) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with agent.join():
            pass
    return caught.value.code(), caught.value.details() or ""


async def join(place: Place) -> FakeAgent:
    agent = FakeAgent(place)
    async with agent.join():
        await agent.heartbeat()
    return agent


async def is_admitted(agent: FakeAgent) -> bool:
    try:
        async with agent.join():
            return True
    except grpc.aio.AioRpcError:
        return False


async def test_only_good_tokens_and_the_registered_key_join(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        place = await api.set_up()
        agent = await join(place)

        forged = FakeAgent(dataclasses.replace(place, token=place.token[:-4] + "AAAA"))
        assert (await refusal(forged))[0] is grpc.StatusCode.UNAUTHENTICATED

        none = FakeAgent(dataclasses.replace(place, token=""))
        assert "SNAP_AGENT_TOKEN" in (await refusal(none))[1]

        elsewhere = FakeAgent(dataclasses.replace(place, cluster="other"))
        assert (await refusal(elsewhere))[0] is grpc.StatusCode.PERMISSION_DENIED

        impostor = FakeAgent(place, key=Ed25519PrivateKey.generate())
        code, why = await refusal(impostor)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "another key" in why

        liar = FakeAgent(place, key=Ed25519PrivateKey.generate())
        liar.key = _Mixed(agent.key, liar.key)  # type: ignore[assignment]
        assert "did not prove" in (await refusal(liar))[1]

        user = FakeAgent(dataclasses.replace(place, token=api.token))
        assert (await refusal(user))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_second_live_session_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = FakeAgent(await api.set_up())
        twin = FakeAgent(agent.place, key=agent.key)
        async with agent.join():
            code, _ = await refusal(twin)
            assert code is grpc.StatusCode.ALREADY_EXISTS
        assert "ALARM" in (tmp_path / "api.log").read_text()
        await until(lambda: is_admitted(twin))  # the first one has left


async def test_an_expired_token_admits_known_nodes_only(tmp_path: Path) -> None:
    async with running(tmp_path / "data", SNAP_AGENT_TOKEN_TTL="6") as api:
        place = await api.set_up()
        agent = await join(place)

        async def new_one_is_refused() -> bool:
            return not await is_admitted(FakeAgent(dataclasses.replace(place, node="late")))

        await until(new_one_is_refused)
        await until(lambda: is_admitted(agent))


async def test_tokens_of_a_deleted_cluster_admit_nobody(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await join(await api.set_up())
        await api.call("DELETE", "/config/clusters/delete", {"name": "dev"})
        code, why = await refusal(agent)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in why


async def test_own_certificates_are_read_again_at_hangup(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("chain.pem", "key.pem", "ca.pem")}

    def put(certificates: tls.Certificates) -> None:
        files["chain.pem"].write_bytes(certificates.leaf)
        files["key.pem"].write_bytes(certificates.key)
        files["ca.pem"].write_bytes(certificates.ca)

    put(tls.make())
    settings = {
        "SNAP_TLS_CERT_FILE": str(files["chain.pem"]),
        "SNAP_TLS_KEY_FILE": str(files["key.pem"]),
        "SNAP_TLS_CA_FILE": str(files["ca.pem"]),
    }
    async with running(tmp_path / "data", **settings) as api:
        agent = await join(await api.set_up())
        renewed = tls.make()
        put(renewed)
        api.hang_up()
        agent.place = dataclasses.replace(agent.place, ca_pem=renewed.ca.decode())
        await until(lambda: is_admitted(agent))
        assert (await api.join_token()).ca_pem == renewed.ca.decode()


async def test_the_made_certificate_outlives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "data", SNAP_TLS_SANS="snap.test,10.9.8.7") as api:
        agent = await join(await api.set_up())
        await api.stop()
        await api.start()
        await until(lambda: is_admitted(agent))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "data" / "tls").iterdir())


class _Mixed:
    """Shows one key and signs with another."""

    def __init__(self, shown: Ed25519PrivateKey, signing: Ed25519PrivateKey) -> None:
        self.public_key, self.sign = shown.public_key, signing.sign
