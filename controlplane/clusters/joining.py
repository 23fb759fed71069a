"""What agents join with: a join token that was made here, or a projected one of their cluster."""

from __future__ import annotations

from typing import Final

from controlplane.clusters import accounts
from controlplane.clusters.accounts import ServiceAccounts
from controlplane.clusters.tokens import JoinClaims, JoinTokens

_OF_A_POD: Final = "kubernetes.io"  # whose pod's, in each token that the TokenRequest API gives out


class Joining:
    """Tells the two kinds apart by what they say of themselves, and has each checked by whom it is known to."""

    def __init__(self, tokens: JoinTokens, projected: ServiceAccounts) -> None:
        self._tokens = tokens
        self._projected = projected

    def is_of_cluster(self, token: str) -> bool:
        """Whether a cluster gave it out, which has to be asked."""
        if self._tokens.has_verified(token):
            return False
        return isinstance(accounts.unverified(token).get(_OF_A_POD), dict)

    async def check(self, token: str, cluster: str = "") -> JoinClaims:
        """What a token says.

        Args:
            cluster: that the agent says it is of; empty for what comes beside a session.

        Raises:
            SnapError: it is refused, as ``JoinTokens.check`` and ``ServiceAccounts.review`` say.
        """
        if not self.is_of_cluster(token):
            return await self._tokens.check(token)
        if cluster:
            return await self._projected.review(cluster, token)
        return await self._projected.known(token)
