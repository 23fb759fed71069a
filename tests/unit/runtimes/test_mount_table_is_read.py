"""The upper directory of a container, from its mount table."""

from __future__ import annotations

from agent.runtimes import mounts

ROOT = (
    "342 300 0:77 / / rw,relatime shared:1 master:2 - overlay overlay rw,"
    "lowerdir=/s/1/fs:/s/2/fs,upperdir=/var/lib/a\\040b/7/fs,workdir=/var/lib/a\\040b/7/work\n"
)
PROC = "343 342 0:80 / /proc rw,nosuid - proc proc rw\n"


def test_the_upper_directory_with_a_space_in_it() -> None:
    table = mounts.parse(ROOT + PROC)
    assert mounts.upper_directory(table) == "/var/lib/a b/7/fs"
    assert (table[1].point, table[1].kind, table[0].device) == ("/proc", "proc", "0:77")


def test_a_root_that_is_no_overlay_has_none() -> None:
    assert (
        mounts.upper_directory(mounts.parse(ROOT.replace("overlay overlay", "btrfs /dev/x")))
        is None
    )
    assert mounts.upper_directory(mounts.parse(ROOT.replace("upperdir", "lower2"))) is None
    assert mounts.upper_directory(()) is None
