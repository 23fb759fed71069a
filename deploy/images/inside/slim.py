"""Runs inside an image's build: leave only the packages that are named and what they depend on.

``python3 slim.py PACKAGE …``. Everything else that dpkg installed is taken away (apt, perl, shells, dpkg's own
programs), together with its entry in dpkg's status: what scanners read there is what is there. Copyright files stay.

Source: deb-control(5) for the fields, dpkg(1) for /var/lib/dpkg/{status,info/*.list}.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")
INFO = Path("/var/lib/dpkg/info")
# /etc/os-release, certificate authorities, the C++ library of binary wheels, services by name, time zones
ALWAYS = ("base-files", "ca-certificates", "libstdc++6", "netbase", "tzdata")
# what only maintainer scripts call, and none runs any more
UNCALLED = frozenset(
    {
        "debconf",
        "debianutils",
        "dpkg",
        "libc-bin",
        "mawk",
        "openssl",
        "perl-base",
        "readline-common",
        "tar",
    }
)
UNNEEDED = (
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/locale",
    "/usr/share/lintian",
    "/usr/share/bash-completion",
    "/usr/share/perl5",
    "/usr/share/python3/runtime.d",
    "/usr/share/gcc",
    "/var/cache",
    "/var/log",
    "/var/lib/apt",
    "/var/lib/pam",
    "/var/lib/systemd",
    "/var/lib/dpkg/info",
    "/var/lib/dpkg/alternatives",
    "/var/lib/dpkg/triggers",
    "/var/lib/dpkg/updates",
    "/etc/apt",
    "/etc/alternatives",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/default",
    "/etc/dpkg",
    "/etc/init.d",
    "/etc/kernel",
    "/etc/logrotate.d",
    "/etc/pam.d",
    "/etc/profile.d",
    "/etc/security",
    "/etc/skel",
    "/etc/update-motd.d",
    "/etc/systemd",
    "/etc/perl",
    "/boot",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
)
STANDARD_LIBRARY = ("idlelib", "turtledemo", "lib2to3", "ensurepip", "test", "pydoc_data")

Fields = dict[str, str]


def installed() -> dict[str, Fields]:
    """dpkg's status: the fields of every installed package by its name."""
    found: dict[str, Fields] = {}
    for stanza in STATUS.read_text().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*(?:\n .*)*)", stanza, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = {**fields, "": stanza}
    return found


def needed(packages: dict[str, Fields], wanted: set[str]) -> set[str]:
    """``wanted`` and everything it depends on, of alternatives the first that is installed."""
    provided = {
        re.split(r"[ (]", one.strip())[0]: name
        for name, fields in packages.items()
        for one in fields.get("Provides", "").split(",")
        if one.strip()
    }
    kept: set[str] = set()
    waiting = [name for name in wanted if name in packages]
    while waiting:
        name = waiting.pop()
        if name in kept or name in UNCALLED:
            continue
        kept.add(name)
        depends = f"{packages[name].get('Pre-Depends', '')},{packages[name].get('Depends', '')}"
        for choice in depends.split(","):
            names = [re.split(r"[ (:]", one.strip())[0] for one in choice.split("|")]
            real = [one if one in packages else provided.get(one, "") for one in names]
            waiting += [one for one in real if one][:1]
    return kept


def files(name: str) -> set[str]:
    """What the package ``name`` put on the disk; folders that are links are followed."""
    lists = [INFO / f"{name}.list", *INFO.glob(f"{name}:*.list")]
    lines = [line for one in lists if one.exists() for line in one.read_text().splitlines()]
    return {str(Path(os.path.realpath(Path(line).parent)) / Path(line).name) for line in lines}


def main(wanted: list[str]) -> None:
    """Take away everything but ``wanted``, ``ALWAYS`` and their dependencies."""
    packages = installed()
    missing = [name for name in wanted if name not in packages]
    if missing:
        sys.exit(f"slim: not installed: {', '.join(missing)}")
    kept = needed(packages, {*wanted, *ALWAYS})
    ours = set().union(*map(files, kept))
    gone: set[str] = set().union(*(files(name) for name in packages.keys() - kept)) - ours
    folders = []
    for path in gone:
        if path.startswith("/usr/share/doc/"):
            continue
        if Path(path).is_dir() and not Path(path).is_symlink():
            folders.append(path)
        else:
            Path(path).unlink(missing_ok=True)
    for path in sorted(folders, reverse=True):
        if not os.listdir(path):  # noqa: PTH208 - whether there is anything at all
            Path(path).rmdir()
    for path in UNNEEDED:
        shutil.rmtree(path, ignore_errors=True)
    for library in Path("/usr/lib").glob("python3.*"):
        for name in STANDARD_LIBRARY:
            shutil.rmtree(library / name, ignore_errors=True)
    _tidy()
    _drop_documents(kept)
    STATUS.write_text("\n\n".join(packages[name][""].strip() for name in sorted(kept)) + "\n")


def _tidy() -> None:
    """Take away links that lead nowhere now, set-user-id bits, backups."""
    for folder in map(Path, ("/usr/bin", "/usr/sbin")):
        for path in folder.iterdir():
            if path.is_symlink() and not path.exists():
                path.unlink()
            elif path.lstat().st_mode & 0o6000 and not path.is_symlink():
                path.chmod(path.lstat().st_mode & 0o777)
    for old in (*STATUS.parent.glob("*-old"), *Path("/etc").glob("*-")):
        old.unlink()
    for link in Path("/etc/ssl/certs").iterdir():  # one file per authority beside the bundle of all
        if link.name != "ca-certificates.crt":
            link.unlink()


def _drop_documents(kept: set[str]) -> None:
    """Of /usr/share/doc the copyright files of what stays."""
    for folder in Path("/usr/share/doc").iterdir():
        if folder.is_symlink():
            continue
        if folder.name not in kept:
            shutil.rmtree(folder)
            continue
        for path in folder.iterdir():
            if path.name == "copyright":
                continue
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)


if __name__ == "__main__":
    main(sys.argv[1:])
