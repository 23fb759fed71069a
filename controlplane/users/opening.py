"""The accounts of an installation, opened: its session key, its rows."""

from __future__ import annotations

import time
from typing import Final

from controlplane.settings import Settings
from controlplane.store.database import Store
from controlplane.store.secrets import Sealer
from controlplane.users.service import Users
from controlplane.users.tokens import Tokens

_KEY: Final = "system/session-key"


async def open_users(store: Store, sealer: Sealer, settings: Settings) -> Users:
    """The accounts in ``store``; the key that signs sessions is made at the first start."""
    key = await store.write(lambda db: sealer.get_or_make(db, _KEY))
    tokens = Tokens(key, time.time, int(settings.user_token_ttl_s))
    users = Users(store, tokens, wall=time.time, rising=time.monotonic)
    await users.load()
    return users
