"""``/config/user/*``: log in and out, and keep the accounts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from controlplane.api.callers import COOKIE
from controlplane.api.calls import UNKNOWN, Call, Done, Reply
from controlplane.api.fields import (
    NO_NUL,
    NOT_PLACEHOLDER,
    PASSWORD_OR_NOTHING,
    Line,
    Name,
    Namespace,
)
from controlplane.api.routing import Section
from controlplane.identity import Role
from controlplane.store.users import UserRow
from controlplane.users.service import Account, parse_role

SECTION: Final = Section("Users", "Accounts, their roles, and logging in.")
RoleName = Literal["administrator", "operator", "viewer", "admin", "user"]
Password = Annotated[str, Meta(max_length=1024, pattern=NO_NUL)]
NewPassword = Annotated[str, Meta(min_length=8, max_length=1024, pattern=NOT_PLACEHOLDER)]
PasswordOrNothing = Annotated[str, Meta(pattern=PASSWORD_OR_NOTHING)]
Email = Annotated[str, Meta(max_length=254, pattern=r"^[^\s\x00-\x1f\x7f]*$(?!\n)")]


class LoginRequest(msgspec.Struct):
    """User name and password."""

    example: ClassVar[dict[str, Any]] = {"username": "admin", "password": "securepassword"}
    username: Line
    password: Password


class UserBrief(msgspec.Struct, frozen=True):
    """Who somebody is."""

    username: str
    role: str
    name: str


class LoginAnswer(msgspec.Struct, frozen=True):
    """A token, to be sent as ``Authorization: Bearer <token>``."""

    token: str
    user: UserBrief
    expires_at: str
    message: str = "Login successful"
    success: bool = True


class UserVerified(msgspec.Struct, frozen=True):
    """Whose token it is."""

    user: UserBrief
    success: bool = True


class UserCreate(msgspec.Struct):
    """A new account."""

    example: ClassVar[dict[str, Any]] = {
        "username": "admin",
        "password": "securepassword",
        "email": "admin@company.com",
        "role": "administrator",
    }
    username: Name
    password: NewPassword
    email: Email | None = None
    role: RoleName = "viewer"
    name: Line | None = None
    namespaces: Annotated[list[Namespace], Meta(max_length=256)] | None = None


class UserUpdate(msgspec.Struct):
    """Changes to an account; what is absent stays. An empty password, or ``********``, keeps the old one."""

    username: Name
    password: PasswordOrNothing | None = None
    email: Email | None = None
    role: RoleName | None = None
    name: Line | None = None
    namespaces: Annotated[list[Namespace], Meta(max_length=256)] | None = None
    current_password: Password | None = None


class UserName(msgspec.Struct):
    """Which account."""

    aliases: ClassVar[dict[str, str]] = {"name": "username"}
    username: Name


class UserDetails(msgspec.Struct, frozen=True):
    """An account as the older server listed it."""

    name: str
    role: str
    username: str
    password: str = ""


class UserAnswer(msgspec.Struct, frozen=True):
    """An account, without its password."""

    name: str
    userdetails: UserDetails
    username: str
    email: str
    role: str
    namespaces: list[str]
    created_at: str
    updated_at: str


class UserDone(msgspec.Struct, frozen=True):
    """Something was done with an account."""

    message: str
    user: UserAnswer
    success: bool = True


@SECTION.route(
    "POST",
    "/config/user/login",
    takes=LoginRequest,
    gives=LoginAnswer,
    needs=None,
    errors=("AUTHENTICATION_FAILED",),
    audited=True,
)
async def log_in(call: Call, wanted: LoginRequest) -> Reply:
    """Log in.

    The token is also set as an HttpOnly cookie, which is accepted for reading and WebSockets.
    """
    call.session = None  # what a stale header or cookie says is not who logs in
    # on record only if it is a user: a password is easily typed into the wrong field
    call.subject = wanted.username if call.services.users.knows(wanted.username) else UNKNOWN
    login = await call.services.users.login(wanted.username, wanted.password, call.address)
    user = login.user
    answer = LoginAnswer(
        token=login.token,
        user=UserBrief(user.username, user.role, user.name),
        expires_at=login.expires_at,
    )
    return Reply(answer, headers={"Set-Cookie": _cookie(call, login.token, login.lifetime_s)})


@SECTION.route("POST", "/config/user/logout", gives=Done)
async def log_out(call: Call) -> Reply:
    """End this session; its token is worth nothing from now on."""
    assert call.session is not None  # noqa: S101 - the route is closed
    await call.services.users.logout(call.session)
    return Reply(Done("Logged out"), headers={"Set-Cookie": _cookie(call, "", 0)})


@SECTION.route("POST", "/config/user/verify", gives=UserVerified)
async def verify(call: Call) -> UserVerified:
    """Whose token this is."""
    user = call.services.users.get(call.actor.username)
    return UserVerified(UserBrief(user.username, user.role, user.name))


@SECTION.route("GET", "/config/user/list", gives=list[UserAnswer])
async def list_users(call: Call) -> list[UserAnswer]:
    """All accounts; who is no administrator sees only the own one."""
    actor = call.actor
    everyone = call.services.users.everyone()
    return [_answer(u) for u in everyone if actor.is_administrator or u.username == actor.username]


@SECTION.route(
    "POST",
    "/config/user/create",
    takes=UserCreate,
    gives=UserDone,
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT",),
    audited=True,
)
async def create_user(call: Call, wanted: UserCreate) -> UserDone:
    """Make an account."""
    call.subject = wanted.username
    user = await call.services.users.create(
        Account(
            wanted.username,
            password=wanted.password,
            name=wanted.name,
            email=wanted.email,
            role=parse_role(wanted.role),
            namespaces=tuple(wanted.namespaces or ()),
        )
    )
    return UserDone(f"User config file {user.username} created successfully", _answer(user))


@SECTION.route(
    "PUT",
    "/config/user/update",
    takes=UserUpdate,
    gives=UserDone,
    also_query=("username",),
    errors=("CONFLICT", "PERMISSION_DENIED", "USER_NOT_FOUND"),
    audited=True,
)
async def update_user(call: Call, wanted: UserUpdate) -> UserDone:
    """Change an account.

    Users may change their own name, address and password (with ``current_password``); administrators
    everything. Changing the password, the role or the namespaces ends every session of the user.
    """
    call.subject = wanted.username
    user = await call.services.users.update(
        Account(
            wanted.username,
            password=wanted.password,
            name=wanted.name,
            email=wanted.email,
            role=None if wanted.role is None else parse_role(wanted.role),
            namespaces=None if wanted.namespaces is None else tuple(wanted.namespaces),
            current_password=wanted.current_password,
        ),
        call.actor,
    )
    return UserDone(f"User config file {user.username} updated successfully", _answer(user))


@SECTION.route(
    "DELETE",
    "/config/user/delete",
    takes=UserName,
    gives=Done,
    also_query=("username",),
    needs=Role.ADMINISTRATOR,
    errors=("CONFLICT", "USER_NOT_FOUND"),
    audited=True,
)
async def delete_user(call: Call, wanted: UserName) -> Done:
    """Remove an account; its sessions end at once. The last administrator stays."""
    call.subject = wanted.username
    await call.services.users.delete(wanted.username)
    return Done(f"User config file {wanted.username} deleted successfully")


def _answer(user: UserRow) -> UserAnswer:
    return UserAnswer(
        name=user.username,
        userdetails=UserDetails(user.name, user.role, user.username),
        username=user.username,
        email=user.email,
        role=user.role,
        namespaces=list(user.namespaces),
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


def _cookie(call: Call, token: str, lifetime_s: int) -> str:
    secure = "; Secure" if call.request.secure else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={lifetime_s}; HttpOnly; SameSite=Strict{secure}"
