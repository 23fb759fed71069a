"""Where a container's binds really are, and what CRIU is told of them under crun."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import errors
from agent.checkpoint import linked
from agent.formats.template import MountFact, Template
from agent.runtimes import mounts
from agent.runtimes.commands import Host
from agent.runtimes.runc import OciRuntime

TOKEN = "/var/run/secrets/token"
ASKED = Template(
    mounts=(
        MountFact(destination=TOKEN, kind="projected", source="/pods/1/token"),
        MountFact(destination="/etc/hosts", kind="runtime", source="/pods/1/etc-hosts"),
        MountFact(destination="/proc", kind="proc", source="proc"),
    )
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node whose process 7 has a root with links in it."""
    root = tmp_path / "proc/7/root"
    (root / "run/secrets/token").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    (root / "up").symlink_to("var/../../../../run")
    (root / "circle").symlink_to("circle")
    points = ["/", "/run/secrets/token", "/etc/hosts", "/proc"]
    lines = [f"{n} 1 0:{n} / {point} rw - tmpfs tmpfs rw" for n, point in enumerate(points, 2)]
    (tmp_path / "proc/7/mountinfo").write_text("\n".join(lines) + "\n")
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (TOKEN, "/run/secrets/token"),
        ("/up/x/", "/run/x"),
        ("/../../etc", "/etc"),
        ("/nowhere/./else", "/nowhere/else"),
    ],
)
def test_links_lead_nowhere_but_into_the_root(host: Host, path: str, place: str) -> None:
    assert mounts.place_of(host, 7, path) == place


def test_links_in_a_circle_end(host: Host) -> None:
    with pytest.raises(OSError, match="circle"):
        mounts.place_of(host, 7, "/circle/x")


def test_criu_is_told_of_them_under_crun(host: Host) -> None:
    found = linked.binds(host, OciRuntime(host, "crun", "/run/crun"), 7, ASKED)
    assert linked.options(found) == (f"external mnt[/run/secrets/token]:{TOKEN}",)
    linked.refuse("runc", "app", found)
    with pytest.raises(errors.Refused, match="engine runc"):
        linked.refuse("cri", "app", found)
    assert linked.binds(host, OciRuntime(host, "runc", "/run/runc"), 7, ASKED) == ()


def test_what_can_not_be_told_is_refused(host: Host) -> None:
    odd = Template(mounts=(MountFact(destination="/var/run/a b", kind="host", source="/x"),))
    info = host.path("/proc/7/mountinfo")
    info.write_text(info.read_text() + "9 1 0:9 / /run/a\\040b rw - tmpfs tmpfs rw\n")
    with pytest.raises(errors.Refused, match="mount it elsewhere"):
        linked.binds(host, OciRuntime(host, "crun", "/run/crun"), 7, odd)
