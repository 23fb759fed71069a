"""``/config/registry/*``: where images go. Passwords go in and never come out."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call, Done
from controlplane.api.fields import (
    PEM_PATTERN,
    Line,
    Name,
    NewSecret,
    RegistryUrl,
    Repository,
    Secret,
)
from controlplane.api.routing import Section
from controlplane.identity import Role
from controlplane.registries.configs import PLACEHOLDER, Registry, RegistryDraft

SECTION: Final = Section("Registry configuration", "Registries that checkpoint images go to.")
Pem = Annotated[str, Meta(max_length=256 << 10, pattern=PEM_PATTERN)]


class RegistryCreate(msgspec.Struct):
    """A new registry config."""

    aliases: ClassVar[dict[str, str]] = {"registry": "url"}
    example: ClassVar[dict[str, Any]] = {
        "name": "nexus-registry",
        "url": "https://nexus.company.com",
        "username": "admin",
        "password": "password123",
        "verify_ssl": True,
    }
    name: Name
    url: RegistryUrl
    username: Line | None = None
    password: NewSecret | None = None
    verify_ssl: bool = True
    repo: Repository | None = None
    ca_pem: Pem | None = None


class RegistryUpdate(msgspec.Struct):
    """Changes to a registry config; what is absent stays."""

    aliases: ClassVar[dict[str, str]] = {"registry": "url"}
    name: Name
    url: RegistryUrl | None = None
    username: Line | None = None
    password: Secret | None = None
    verify_ssl: bool | None = None
    repo: Repository | None = None
    ca_pem: Pem | None = None


class RegistryName(msgspec.Struct):
    """Which registry config."""

    name: Name


class RegistryDetails(msgspec.Struct, frozen=True):
    """A registry config as the older server listed it."""

    registry: str
    username: str
    password: str


class RegistryAnswer(msgspec.Struct, frozen=True):
    """A registry config; the password is a placeholder."""

    name: str
    registry_config_details: RegistryDetails
    url: str
    username: str
    password: str
    verify_ssl: bool
    repo: str
    ca_pem: str
    created_at: str
    updated_at: str


class RegistryDone(msgspec.Struct, frozen=True):
    """Something was done with a registry config."""

    message: str
    registry_config: RegistryAnswer
    success: bool = True


class RegistryList(msgspec.Struct, frozen=True):
    """All registry configs."""

    registry_configs: list[RegistryAnswer]
    message: str = "Registry configs listed successfully"
    success: bool = True


@SECTION.route(
    "POST",
    "/config/registry/create",
    takes=RegistryCreate,
    gives=RegistryDone,
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT",),
    audited=True,
)
async def create_registry(call: Call, wanted: RegistryCreate) -> RegistryDone:
    """Keep a registry config."""
    call.subject = wanted.name
    kept = await call.services.registries.create(_draft(wanted))
    await call.services.registries_changed()
    return RegistryDone(f"Registry config file {wanted.name} created successfully", _answer(kept))


@SECTION.route("GET", "/config/registry/list", gives=RegistryList)
async def list_registries(call: Call) -> RegistryList:
    """All registry configs."""
    found = await call.services.registries.everything()
    return RegistryList([_answer(registry) for registry in found])


@SECTION.route(
    "PUT",
    "/config/registry/update",
    takes=RegistryUpdate,
    gives=RegistryDone,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT", "REGISTRY_NOT_FOUND"),
    audited=True,
)
async def update_registry(call: Call, wanted: RegistryUpdate) -> RegistryDone:
    """Change a registry config.

    The placeholder as password keeps the stored one; another ``url``, ``verify_ssl`` or ``ca_pem`` needs it again.
    """
    call.subject = wanted.name
    kept = await call.services.registries.update(_draft(wanted))
    await call.services.registries_changed()
    return RegistryDone(f"Registry config file {wanted.name} updated successfully", _answer(kept))


@SECTION.route(
    "DELETE",
    "/config/registry/delete",
    takes=RegistryName,
    gives=Done,
    also_query=("name",),
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT", "REGISTRY_NOT_FOUND"),
    audited=True,
)
async def delete_registry(call: Call, wanted: RegistryName) -> Done:
    """Remove a registry config and its password; the images stay where they are."""
    call.subject = wanted.name
    await call.services.registries.delete(wanted.name)
    await call.services.registries_changed()
    return Done(f"Registry config file {wanted.name} deleted successfully")


def _draft(wanted: RegistryCreate | RegistryUpdate) -> RegistryDraft:
    return RegistryDraft(
        name=wanted.name,
        url=wanted.url,
        username=wanted.username,
        password=wanted.password,
        verify_ssl=wanted.verify_ssl,
        repo=wanted.repo,
        ca_pem=wanted.ca_pem,
    )


def _answer(registry: Registry) -> RegistryAnswer:
    row = registry.row
    password = PLACEHOLDER if registry.has_password else ""
    shown = row.host + (f"/{row.path}" if row.path else "")
    return RegistryAnswer(
        name=row.name,
        registry_config_details=RegistryDetails(shown, row.username, password),
        url=row.url,
        username=row.username,
        password=password,
        verify_ssl=row.verify_ssl,
        repo=row.repo,
        ca_pem=row.ca_pem,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
