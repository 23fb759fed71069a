"""``/config/secret/*``: API keys that go in and never come out."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done
from controlplane.api.fields import Name, NewSecret, Secret
from controlplane.api.routing import Section
from controlplane.identity import Role
from controlplane.store.keys import KeyRow
from controlplane.users.keys import PLACEHOLDER

SECTION: Final = Section("Secrets", "API keys: they go in, are sealed, and never come out.")
KeyName = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
NewValues = Annotated[dict[KeyName, NewSecret], Meta(min_length=1, max_length=64)]
Values = Annotated[dict[KeyName, Secret], Meta(min_length=1, max_length=64)]


class SecretCreate(msgspec.Struct):
    """A named secret and its values."""

    example: ClassVar[dict[str, Any]] = {"name": "openai-api-key", "api_key": {"key": "sk-…"}}
    name: Name
    api_key: NewValues


class SecretUpdate(msgspec.Struct):
    """What a secret holds from now on; ``********`` keeps a value that is there."""

    example: ClassVar[dict[str, Any]] = {"name": "openai-api-key", "api_key": {"key": "sk-…"}}
    name: Name
    api_key: Values


class SecretName(msgspec.Struct):
    """Which secret."""

    name: Name


class SecretItem(msgspec.Struct, frozen=True):
    """A secret: the names of its keys; every value is a placeholder."""

    name: str
    api_key: dict[str, str]
    created_at: str
    updated_at: str


class SecretList(msgspec.Struct, frozen=True):
    """All secrets, without their values."""

    secrets: list[SecretItem]
    message: str = "Secrets listed successfully"
    success: bool = True


class SecretDone(msgspec.Struct, frozen=True):
    """Something was done with a secret."""

    message: str
    secret: SecretItem
    success: bool = True


@SECTION.route(
    "POST",
    "/config/secret/create",
    takes=SecretCreate,
    gives=SecretDone,
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT",),
    audited=True,
)
async def create_secret(call: Call, wanted: SecretCreate) -> SecretDone:
    """Keep a secret."""
    call.subject = wanted.name
    kept = await call.services.api_keys.create(wanted.name, wanted.api_key)
    return SecretDone(f"Secret {wanted.name} created successfully", _item(kept))


@SECTION.route(
    "PUT",
    "/config/secret/update",
    takes=SecretUpdate,
    gives=SecretDone,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT", "SECRET_NOT_FOUND"),
    audited=True,
)
async def update_secret(call: Call, wanted: SecretUpdate) -> SecretDone:
    """Replace a secret."""
    call.subject = wanted.name
    kept = await call.services.api_keys.update(wanted.name, wanted.api_key)
    return SecretDone(f"Secret {wanted.name} updated successfully", _item(kept))


@SECTION.route("GET", "/config/secret/list", gives=SecretList, needs=Role.OPERATOR)
async def list_secrets(call: Call) -> SecretList:
    """All secrets: their names and the names of their keys."""
    return SecretList([_item(row) for row in await call.services.api_keys.everything()])


@SECTION.route(
    "DELETE",
    "/config/secret/delete",
    takes=SecretName,
    gives=Done,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("SECRET_NOT_FOUND",),
    audited=True,
)
async def delete_secret(call: Call, wanted: SecretName) -> Done:
    """Forget a secret."""
    call.subject = wanted.name
    await call.services.api_keys.delete(wanted.name)
    return Done(f"Secret {wanted.name} deleted successfully")


def _item(row: KeyRow) -> SecretItem:
    return SecretItem(
        row.name, dict.fromkeys(row.keys, PLACEHOLDER), row.created_at, row.updated_at
    )
