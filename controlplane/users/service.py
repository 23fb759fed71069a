"""Accounts and sessions: who is asking, and who may change whom.

Accounts are kept in memory beside the store (one process owns the data folder), so that recognising a
token costs no query.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sqlite_utils import Database

from controlplane.errors import (
    RATE_LIMITED,
    USER_NOT_FOUND,
    Broken,
    Conflict,
    Denied,
    NotFound,
    Refused,
    Retryable,
    Unauthenticated,
)
from controlplane.identity import Actor, Role
from controlplane.store import clock, users
from controlplane.store.database import Store
from controlplane.store.users import UserRow
from controlplane.users import passwords
from controlplane.users.guessing import Guessing
from controlplane.users.passwords import Passwords
from controlplane.users.tokens import Claims, Tokens

FIRST_ADMINISTRATOR: Final = "admin"
PLACEHOLDER: Final = "********"
_READ_TOKENS: Final = 4096
_WRONG: Final = "The user name or the password is wrong."
_ROLE_NAMES: Final = {"admin": Role.ADMINISTRATOR, "user": Role.VIEWER}  # the older server's


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who proved who they are.

    Attributes:
        expires_at: Unix seconds when the token is over.
        stamp: of the account when it was recognised.
    """

    actor: Actor
    token_id: str
    expires_at: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Login:
    """A login that worked; ``expires_at`` is RFC 3339 UTC."""

    token: str = field(repr=False)
    user: UserRow
    expires_at: str
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class Account:
    """What a new account is made of, or what an old one becomes; None keeps what is there."""

    username: str
    password: str | None = field(default=None, repr=False)
    name: str | None = None
    email: str | None = None
    role: Role | None = None
    namespaces: tuple[str, ...] | None = None
    current_password: str | None = field(default=None, repr=False)


class Users:
    """The accounts of this installation.

    Args:
        wall: Unix seconds.
        rising: seconds that never jump.
    """

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        *,
        wall: Callable[[], float],
        rising: Callable[[], float],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._wall = wall
        self._passwords = Passwords()
        self._guessing = Guessing(rising)
        self._users: dict[str, UserRow] = {}
        self._revoked: dict[str, str] = {}
        self._read: OrderedDict[str, Claims] = OrderedDict()

    async def load(self) -> None:
        """Read the accounts; called once before anything else."""
        self._users = {u.username: u for u in await self._store.read(users.everyone)}
        self._revoked = await self._store.read(users.revoked_tokens)

    async def make_first_administrator(self, password: str = "") -> str | None:
        """Make the user ``admin`` if there are no users yet.

        Args:
            password: empty to have one made up.

        Returns:
            The password that was made up, to be shown once; None if none was.

        Raises:
            Broken: ``password`` is too short to be one.
        """
        if self._users:
            return None
        if password and len(password) < passwords.MINIMUM_LENGTH:
            raise Broken(
                f"SNAP_ADMIN_PASSWORD must have at least {passwords.MINIMUM_LENGTH} characters."
            )
        made_up = "" if password else passwords.generate()
        hashed = await self._passwords.hash(password or made_up)
        row = UserRow(FIRST_ADMINISTRATOR, FIRST_ADMINISTRATOR, "", Role.ADMINISTRATOR, hashed)
        self._remember(await self._store.write(lambda db: users.put(db, row)))
        return made_up or None

    def identify(self, token: str) -> Session | None:
        """Who shows ``token``; None when it is broken, over, ended, or its user was changed."""
        claims = self._read.get(token)
        if claims is None:
            claims = self._tokens.read(token)
            if claims is None:
                return None
            self._read[token] = claims
            if len(self._read) > _READ_TOKENS:
                self._read.popitem(last=False)
        user = self._users.get(claims.username)
        if user is None:
            return None
        session = Session(actor_of(user), claims.token_id, claims.expires_at, claims.stamp)
        return session if self.is_current(session) else None

    def is_current(self, session: Session) -> bool:
        """Whether a session that was recognised once is still good."""
        user = self._users.get(session.actor.username)
        return (
            user is not None
            and session.expires_at > self._wall()
            and session.token_id not in self._revoked
            and session.stamp == _stamp(user)
        )

    def knows(self, username: str) -> bool:
        """Whether there is such an account; for records, never for an answer to a stranger."""
        return username in self._users

    async def login(self, username: str, password: str, address: str) -> Login:
        """A session for who knows the password.

        Takes the same time whether or not the user exists.

        Raises:
            Unauthenticated: user name or password is wrong.
            Retryable: too many failures from ``address``; it must wait.
        """
        wait_s = self._guessing.address_wait_s(address)
        if wait_s > 0:
            raise Retryable(
                "Too many failed logins from your address; try again later.",
                after_s=wait_s,
                code=RATE_LIMITED,
            )
        delay_s = self._guessing.user_delay_s(username)
        user = self._users.get(username)
        right = await self._passwords.matches(user.password_hash if user else None, password)
        if not right:
            self._guessing.failed(username, address)
        await asyncio.sleep(delay_s)
        user = self._users.get(username) if right else None  # may be gone by now
        if user is None:
            raise Unauthenticated(_WRONG)
        self._guessing.succeeded(username, address)
        token, claims = self._tokens.issue(username, _stamp(user))
        return Login(token, user, _moment(claims.expires_at), self._tokens.lifetime_s)

    async def logout(self, session: Session) -> None:
        """End ``session``; its token is worth nothing from now on."""
        ends = _moment(session.expires_at)
        self._revoked[session.token_id] = ends
        await self._store.write(lambda db: users.revoke_token(db, session.token_id, ends))
        now = clock.now()
        self._revoked = {token: at for token, at in self._revoked.items() if at >= now}

    def everyone(self) -> list[UserRow]:
        """All accounts, by name."""
        return sorted(self._users.values(), key=lambda user: user.username)

    def get(self, username: str) -> UserRow:
        """The account of ``username``.

        Raises:
            NotFound: there is none.
        """
        user = self._users.get(username)
        if user is None:
            raise NotFound(f"There is no user {username}.", code=USER_NOT_FOUND)
        return user

    async def create(self, wanted: Account) -> UserRow:
        """Make a new account.

        Raises:
            Conflict: the name is taken.
            Refused: the password is missing or too short.
        """
        _check_password(wanted.password)
        row = UserRow(
            username=wanted.username,
            name=wanted.name or wanted.username,
            email=wanted.email or "",
            role=wanted.role or Role.VIEWER,
            password_hash=await self._passwords.hash(wanted.password or ""),
            namespaces=wanted.namespaces or (),
        )

        def insert(db: Database) -> UserRow:
            if users.get(db, row.username) is not None:
                raise Conflict(f"There is a user {row.username} already.")
            return users.put(db, row)

        return self._remember(await self._store.write(insert))

    async def update(self, wanted: Account, by: Actor) -> UserRow:
        """Change an account: an administrator anybody's, others the harmless parts of their own.

        An empty password, or the placeholder, keeps the old one. A change of password, role or
        namespaces ends every session of the user.

        Raises:
            NotFound: there is no such user.
            Denied: ``by`` may not do that.
            Conflict: it would leave nobody to administrate.
        """
        user = self.get(wanted.username) if by.is_administrator else self._own(wanted, by)
        hashed = None
        if wanted.password and wanted.password != PLACEHOLDER:
            _check_password(wanted.password)
            await self._check_current(user, wanted, by)
            hashed = await self._passwords.hash(wanted.password)

        def change(db: Database) -> UserRow:
            old = users.get(db, wanted.username)
            if old is None:
                raise NotFound(f"There is no user {wanted.username}.", code=USER_NOT_FOUND)
            new = users.put(db, _changed(old, wanted, hashed))
            _check_administrators(db)
            return new

        return self._remember(await self._store.write(change))

    async def delete(self, username: str) -> None:
        """Remove an account; its sessions end at once.

        Raises:
            NotFound: there is no such user.
            Conflict: it is the last administrator.
        """

        def remove(db: Database) -> None:
            if not users.delete(db, username):
                raise NotFound(f"There is no user {username}.", code=USER_NOT_FOUND)
            _check_administrators(db)

        await self._store.write(remove)
        self._users.pop(username, None)

    def _own(self, wanted: Account, by: Actor) -> UserRow:
        if wanted.username != by.username:
            raise Denied("Only an administrator may change other users.")
        user = self.get(by.username)
        role_stays = wanted.role in (None, user.role)
        if not role_stays or wanted.namespaces not in (None, user.namespaces):
            raise Denied("Only an administrator may change roles and namespaces.")
        return user

    async def _check_current(self, user: UserRow, wanted: Account, by: Actor) -> None:
        """A stolen session must not be enough to take over an account for good."""
        if by.is_administrator and wanted.current_password is None:
            return
        if not await self._passwords.matches(user.password_hash, wanted.current_password or ""):
            raise Denied("To change your password, give the old one in `current_password`.")

    def _remember(self, user: UserRow) -> UserRow:
        self._users[user.username] = user
        return user


def actor_of(user: UserRow) -> Actor:
    """The user as somebody who asks for something."""
    return Actor(user.username, user.role, user.namespaces)


def parse_role(name: str) -> Role:
    """The role called ``name`` in either dialect.

    Raises:
        ValueError: there is none.
    """
    return _ROLE_NAMES.get(name) or Role(name)


def _moment(unix_s: int) -> str:
    return clock.stamp(datetime.fromtimestamp(unix_s, UTC))


def _stamp(user: UserRow) -> str:
    """What ties a session to the account as it is now, also when a name was given away again."""
    said = f"{user.username}\n{user.created_at}\n{user.token_generation}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _changed(old: UserRow, wanted: Account, hashed: str | None) -> UserRow:
    new = replace(
        old,
        name=old.name if wanted.name is None else wanted.name or old.username,
        email=old.email if wanted.email is None else wanted.email,
        role=wanted.role or old.role,
        namespaces=old.namespaces if wanted.namespaces is None else wanted.namespaces,
        password_hash=hashed or old.password_hash,
    )
    matters = (old.role, old.namespaces, old.password_hash)
    if matters == (new.role, new.namespaces, new.password_hash):
        return new
    return replace(new, token_generation=old.token_generation + 1)


def _check_administrators(db: Database) -> None:
    """Refuse, and so undo, a write that leaves nobody to administrate."""
    if users.count_administrators(db) == 0:
        raise Conflict("The last administrator can't be removed; make another one first.")


def _check_password(password: str | None) -> None:
    if not password or len(password) < passwords.MINIMUM_LENGTH:
        raise Refused(f"Field `password` must have at least {passwords.MINIMUM_LENGTH} characters.")
    if password == PLACEHOLDER:
        raise Refused("Field `password` is the placeholder for a password, not one.")
