"""A projected token admits the agent of its own node, and each that does not is refused with its reason."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest

from controlplane.clusters.accounts import ServiceAccounts
from controlplane.clusters.joining import Joining
from controlplane.clusters.tokens import JoinClaims, JoinRefusal, JoinTokens
from controlplane.errors import Denied, Failed, NotFound, Retryable, SnapError, Unauthenticated
from controlplane.identity import Actor, Role
from controlplane.kube.client import KubeClient
from controlplane.store.database import open_store
from tests.fakes.kube_server import Fault, KubeServer

EXTRA = "authentication.kubernetes.io/"
ACCOUNT = "system:serviceaccount:snap:snap-agent"


class _Apis:
    """One cluster, ``c1``."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def client(self, cluster: str) -> KubeClient:
        if cluster != "c1":
            raise NotFound("There is no such cluster.")
        return self._client


@pytest.fixture
def accounts(client: KubeClient) -> ServiceAccounts:
    return ServiceAccounts(_Apis(client), ["snap/snap-agent"])


def _token(
    fake: KubeServer, user: str = ACCOUNT, audience: str = "snap-agent", **extra: str
) -> str:
    """A token that the server takes."""
    said = {
        "iss": "https://kubernetes.default.svc",
        "aud": [audience],
        "exp": time.time() + 600,
        "kubernetes.io": {},
    }
    token = jwt.encode(said | {"jti": user + str(extra)}, "k" * 32)
    fake.reviews[token] = {
        "authenticated": True,
        "audiences": [audience],
        "user": {
            "username": user,
            "extra": {EXTRA + k.replace("_", "-"): [v] for k, v in extra.items()},
        },
    }
    return token


async def _refused(accounts: ServiceAccounts, token: str, cluster: str = "c1") -> SnapError:
    with pytest.raises(SnapError) as failure:
        await accounts.review(cluster, token)
    assert token not in f"{failure.value.message} {failure.value.details}"
    return failure.value


async def test_the_node_is_the_tokens(accounts: ServiceAccounts, fake: KubeServer) -> None:
    found = await accounts.review("c1", _token(fake, node_name="n1", pod_name="agent-1"))
    assert found == JoinClaims("c1", "snap/snap-agent", is_expired=False, node="n1")


async def test_an_older_cluster_tells_the_node_by_the_pod(
    accounts: ServiceAccounts, fake: KubeServer
) -> None:
    pod = fake.put("/api/v1/namespaces/snap/pods/agent-1", spec={"nodeName": "n2"})
    good = _token(fake, pod_name="agent-1", pod_uid=pod["metadata"]["uid"])
    assert (await accounts.review("c1", good)).node == "n2"
    for other in ({"pod_name": "agent-1", "pod_uid": "another"}, {"pod_name": "gone"}, {}):
        refusal = await _refused(accounts, _token(fake, **other))
        assert (type(refusal), refusal.details) == (Denied, JoinRefusal.NO_NODE)


@pytest.mark.parametrize(
    ("user", "audience", "reason"),
    [
        ("system:serviceaccount:snap:default", "snap-agent", JoinRefusal.ACCOUNT),
        ("system:serviceaccount:other:snap-agent", "snap-agent", JoinRefusal.ACCOUNT),
        ("admin", "snap-agent", JoinRefusal.ACCOUNT),
        (ACCOUNT, "https://kubernetes.default.svc", JoinRefusal.AUDIENCE),
    ],
    ids=["account", "namespace", "person", "audience"],
)
async def test_another_account_or_audience_is_refused(
    accounts: ServiceAccounts, fake: KubeServer, user: str, audience: str, reason: str
) -> None:
    token = _token(fake, user, audience, node_name="n1")
    assert (await _refused(accounts, token)).details == reason


async def test_what_the_cluster_does_not_take_is_refused(accounts: ServiceAccounts) -> None:
    claims: dict[str, Any] = {"iss": "https://kubernetes.default.svc", "aud": ["snap-agent"]}
    expired = jwt.encode(claims | {"exp": 1}, "k" * 32)
    forged = jwt.encode(claims | {"exp": time.time() + 60}, "k" * 32)
    assert (await _refused(accounts, expired)).details == JoinRefusal.EXPIRED
    refusal = await _refused(accounts, forged)
    assert (type(refusal), refusal.details) == (Unauthenticated, JoinRefusal.UNKNOWN_TOKEN)


async def test_a_cluster_that_is_not_set_up_admits_nobody(
    accounts: ServiceAccounts, fake: KubeServer
) -> None:
    token = _token(fake, node_name="n1")
    assert (await _refused(accounts, token, "other")).details == JoinRefusal.OTHER_CLUSTER


@pytest.mark.parametrize(("status", "kind"), [(503, Retryable), (403, Failed)])
async def test_a_cluster_that_can_not_be_asked_admits_nobody(
    accounts: ServiceAccounts, fake: KubeServer, status: int, kind: type[SnapError]
) -> None:
    token = _token(fake, node_name="n1")
    fake.fail(Fault(status))
    assert isinstance(await _refused(accounts, token), kind)


async def test_what_comes_beside_a_session_is_known_by_it(
    accounts: ServiceAccounts, fake: KubeServer
) -> None:
    token, later = _token(fake, node_name="n1"), _token(fake, node_name="n1", pod_name="x")
    with pytest.raises(Unauthenticated):
        await accounts.known(token)  # nobody has joined yet, so no cluster is asked
    await accounts.review("c1", token)
    reviews = fake.asked.total()
    assert (await accounts.known(token)).cluster == "c1"
    assert fake.asked.total() == reviews
    assert (await accounts.known(later)).cluster == "c1"  # the kubelet has made a new one
    with pytest.raises(Unauthenticated):
        await accounts.known("x.y.z")


async def test_the_two_kinds_are_told_apart(
    accounts: ServiceAccounts, fake: KubeServer, tmp_path: Path
) -> None:
    with closing(open_store(tmp_path)) as store:
        tokens = JoinTokens(store, b"k" * 32, 60.0, lambda: "")
        joining = Joining(tokens, accounts)
        token = _token(fake, node_name="n1")
        assert joining.is_of_cluster(token)
        assert not joining.is_of_cluster(jwt.encode({"iss": "snap"}, "k" * 32))
        assert not joining.is_of_cluster("no token at all")
        assert (await joining.check(token, "c1")).node == "n1"
        assert (await joining.check(token)).node == "n1"
        given = await tokens.issue("c2", Actor("root", Role.ADMINISTRATOR))
        for _ in range(2):
            assert not joining.is_of_cluster(given.token)
            assert (await joining.check(given.token, "c2")).cluster == "c2"
