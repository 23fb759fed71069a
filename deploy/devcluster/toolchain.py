"""The Go compiler that builds the cluster's programs: the machine's own, or Debian's in a root tree for building."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from deploy.devnode import rootfs
from deploy.devnode.instance import cache_root
from deploy.devnode.rootfs import LEASHED, Say

NEEDED: Final = (1, 26)
PACKAGES: Final = (
    "golang-go",
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkg-config",
    "ca-certificates",
)
BUILD_S: Final = 3600.0
_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Go:
    """A Go compiler: argv that runs it, and the environment it needs."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def run(
        self, words: Sequence[str], *, cwd: Path, sink: IO[str], env: Mapping[str, str]
    ) -> None:
        """Run ``go WORDS`` in ``cwd``, its output into ``sink``.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run(
            [*LEASHED, *self.argv, *words],
            cwd=cwd,
            env={**os.environ, **self.env, **env},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            timeout=BUILD_S,
        )

    def read(self, words: Sequence[str], *, cwd: Path) -> str:
        """What ``go WORDS`` prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        return subprocess.run(
            [*LEASHED, *self.argv, *words],
            cwd=cwd,
            env={**os.environ, **self.env},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=BUILD_S,
        ).stdout


def find(say: Say) -> Go:
    """The machine's Go if it is new enough, else Debian's in a tree of its own (made once, 2 minutes).

    Raises:
        rootfs.BuildFailed: debootstrap failed.
    """
    own = shutil.which("go")
    if own and _version(own) >= NEEDED:
        return Go(("nice", "-n", "10", own), {"GOTOOLCHAIN": "local"})
    say(f"no Go {'.'.join(map(str, NEEDED))} or later on this machine: using Debian's")
    tree = rootfs.cached(
        "build",
        [rootfs.SUITE, *PACKAGES],
        lambda out, log: rootfs.debootstrap(out, log, PACKAGES),
        say,
    )
    return _inside(tree)


def _version(go: str) -> tuple[int, ...]:
    told = subprocess.run([go, "version"], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"go(\d+)\.(\d+)", told.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


def _inside(tree: Path) -> Go:
    """Go in ``tree``, with this machine's cache, network and certificates; the mounts end with it."""
    cache = cache_root()
    script = (
        'tree=$1 cache=$2; shift 2; mount --make-rprivate /; mount -t proc proc "$tree/proc"; '
        'mount --bind /dev "$tree/dev"; mkdir -p "$tree$cache"; mount --bind "$cache" "$tree$cache"; '
        'cp /etc/resolv.conf "$tree/etc/resolv.conf"; cp "$BUNDLE" "$tree$BUNDLE"; '
        'exec chroot "$tree" /bin/sh -c \'cd "$0" && exec nice -n 10 go "$@"\' "$PWD" "$@"'
    )
    enter = ("unshare", "-m", "-p", "--fork", "--kill-child", "sh", "-euc", script, "build")
    env = {
        "BUNDLE": str(_BUNDLE),
        "GOTOOLCHAIN": "local",
        "GOPATH": str(cache / "go"),
        "GOCACHE": str(cache / "go/build"),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    return Go((*enter, str(tree), str(cache)), env)
