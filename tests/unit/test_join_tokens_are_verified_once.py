"""A join token's signature is looked at once; whether it was revoked or has expired, each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.clusters.tokens import JoinRefusal, JoinTokens
from controlplane.errors import Unauthenticated
from controlplane.identity import Actor, Role
from controlplane.store.database import Store, open_store

ADMINISTRATOR = Actor("root", Role.ADMINISTRATOR)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def tokens(store: Store, ttl_s: float = 60.0) -> JoinTokens:
    return JoinTokens(store, b"k" * 32, ttl_s, lambda: "")


async def test_what_was_verified_is_known_and_says_the_same(store: Store) -> None:
    checked = tokens(store)
    given = await checked.issue("dev", ADMINISTRATOR)
    assert not checked.has_verified(given.token)
    first = await checked.check(given.token)
    assert checked.has_verified(given.token)
    assert await checked.check(given.token) == first
    assert (first.cluster, first.token_id, first.is_expired) == ("dev", given.token_id, False)


async def test_a_revoked_one_is_refused_though_it_was_verified(store: Store) -> None:
    checked = tokens(store)
    given = await checked.issue("dev", ADMINISTRATOR)
    await checked.check(given.token)
    await checked.revoke("dev", given.token_id, ADMINISTRATOR)
    with pytest.raises(Unauthenticated) as refused:
        await checked.check(given.token)
    assert refused.value.details == JoinRefusal.REVOKED


async def test_one_that_expires_is_told_so_though_it_was_verified(store: Store) -> None:
    checked = tokens(store, ttl_s=-1.0)
    given = await checked.issue("dev", ADMINISTRATOR)
    assert [(await checked.check(given.token)).is_expired for _ in range(2)] == [True, True]


async def test_a_forged_one_is_never_known(store: Store) -> None:
    checked = tokens(store)
    given = await checked.issue("dev", ADMINISTRATOR)
    await checked.check(given.token)
    head, claims, _ = given.token.split(".")
    forged = f"{head}.{claims}.{'A' * 43}"
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refused:
            await checked.check(forged)
        assert refused.value.details == JoinRefusal.UNKNOWN_TOKEN
    assert not checked.has_verified(forged)
