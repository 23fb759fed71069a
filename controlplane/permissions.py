"""Where an actor may act: the refusals that every use case words alike."""

from __future__ import annotations

from controlplane.errors import Denied
from controlplane.identity import Actor


def require_namespace(actor: Actor, namespace: str) -> None:
    """Raise Denied if the actor may not act in ``namespace``."""
    if not actor.may_act_in(namespace):
        raise Denied(f"User {actor.username} may not act in namespace {namespace}.")


def require_all_namespaces(actor: Actor) -> None:
    """Raise Denied if only some namespaces are open to the actor."""
    if actor.namespaces and not actor.is_administrator:
        raise Denied(f"User {actor.username} may not act in all namespaces of a cluster.")
