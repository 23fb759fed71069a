"""Lazy or eager: the rule, and what a lazy one waits for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Retryable
from agent.formats import core_images
from agent.formats.digest import Digest
from agent.restore.holding import HeldImages
from agent.restore.laziness import FEATURE, WORTH_BYTES, Situation, choose
from tests.fakes.late_images import LateImages

LARGE = Situation("auto", "The pod", "runc", frozenset({FEATURE}), WORTH_BYTES, 1)


@pytest.mark.parametrize(
    ("changes", "lazy"),
    [
        pytest.param({}, True, id="one large process"),
        pytest.param({"asked": ""}, False, id="nobody gets it unasked"),
        pytest.param({"asked": "eager"}, False, id="eager is always obeyed"),
        pytest.param({"asked": "later"}, False, id="an unknown mode is eager"),
        pytest.param({"lazy_bytes": WORTH_BYTES - 1}, False, id="small"),
        pytest.param({"lazy_bytes": 4096, "asked": "lazy"}, True, id="small, but asked for"),
        pytest.param({"lazy_bytes": 0, "asked": "lazy"}, False, id="nothing to bring later"),
        pytest.param({"address_spaces": 2}, False, id="two processes"),
        pytest.param({"address_spaces": 2, "asked": "lazy"}, True, id="two, but asked for"),
        pytest.param({"oci_runtime": "crun", "asked": "lazy"}, False, id="crun can't"),
        pytest.param({"criu_features": frozenset(), "asked": "lazy"}, False, id="kernel can't"),
    ],
)
def test_the_choice(changes: dict[str, Any], lazy: bool) -> None:
    chosen = choose(replace(LARGE, **changes))
    assert chosen.lazy is lazy
    assert chosen.reason.endswith(".")


@pytest.mark.parametrize("asked", ["eager", "lazy", "later"])
def test_the_reason_names_who_asked(asked: str) -> None:
    chosen = choose(replace(LARGE, asked=asked, by="The checkpoint"))
    assert chosen.reason.startswith("The checkpoint asks for ")


async def test_flat_memory_that_is_late_is_ready_for_the_next_pod(tmp_path: Path) -> None:
    late, kept = LateImages(tmp_path / "image"), list[asyncio.Task[Path]]()
    images = HeldImages(late, late, kept.append)
    wanted = Digest("sha256:" + "1" * 64)
    with pytest.raises(Retryable):
        await images.flat(wanted, time.monotonic())
    late.ready.set()
    assert await kept[0] == tmp_path / "image.flat"
    assert await images.flat(wanted, time.monotonic() + 60) == tmp_path / "image.flat"


@pytest.mark.parametrize(
    ("mib", "address_spaces", "flat"),
    [(4096, 1, False), (127, 40, False), (128, 2, True)],
    ids=["one process", "small", "forked"],
)
def test_what_is_read_flat_although_it_comes_before(
    mib: int, address_spaces: int, *, flat: bool
) -> None:
    assert core_images.is_sooner_flat(mib << 20, address_spaces) is flat
