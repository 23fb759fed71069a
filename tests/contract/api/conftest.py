"""A running API for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import api_server
from tests.fakes.api_server import Server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The API, without limits on the rate."""
    async with api_server.running(tmp_path) as running:
        yield running
