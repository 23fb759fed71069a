"""A timerfd that fires again and again does so after a restore too, read or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats import criu_images, criu_wire, periodic_timers
from snap_protos.criu import images_pb2

# as CRIU 4.2.1 wrote it of one that had fired once, with a period of 200 ms; the owner (field 3) is not in our subset
FIRED = bytes.fromhex(
    "0811100f6222080f1082101a0a08001000180020002800200128013000380040004800508084af5f"
)
MAGIC = criu_images.magic(0x56303138)


def timer(**fields: int) -> bytes:
    usual = {"id": 1, "flags": 2, "clockid": 1, "ticks": 0, "settime_flags": 0}
    set_to = {"vsec": 0, "vnsec": 0, "isec": 0, "insec": 0}
    entry = images_pb2.timerfd_entry(**usual | set_to | fields)
    return images_pb2.file_entry(type=17, id=1, tfd=entry).SerializeToString()


def test_one_that_fired_and_was_not_read_is_armed(tmp_path: Path) -> None:
    image = tmp_path / "files.img"
    image.write_bytes(criu_images.build(MAGIC, [timer(), FIRED]))
    assert periodic_timers.arm(tmp_path)
    untouched, armed = criu_images.entries(image.read_bytes())
    assert untouched == timer()
    found = images_pb2.file_entry.FromString(armed).tfd
    assert (found.ticks, found.vnsec, found.insec) == (1, 200_000_000, 200_000_000)
    assert FIRED[11:23] in armed  # whose it is
    assert not periodic_timers.arm(tmp_path)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(timer(isec=1), id="off"),
        pytest.param(timer(ticks=1), id="once"),
        pytest.param(timer(ticks=1, isec=1, vnsec=5), id="running"),
        pytest.param(images_pb2.file_entry(type=4, id=1).SerializeToString(), id="no timer"),
    ],
)
def test_others_stay_as_they_are(message: bytes) -> None:
    assert criu_wire.with_timer_armed(message) == message


def test_damaged_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "files.img").write_bytes(b"")
    with pytest.raises(ValueError, match="CRIU image"):
        periodic_timers.arm(tmp_path)
