"""The base images of the devnode, made from programs here and files of the nodes' root tree.

pause, counter, redis, hog and python; nothing is downloaded for them.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.image.writer import FileEntry, ImageConfig, ImageSource
from deploy.devnode.rootfs import NodeParts

PROGRAMS: Final = Path(__file__).with_name("programs")
APPLETS: Final = (
    "cat",
    "chmod",
    "cp",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "tar",
    "touch",
    "tr",
    "true",
    "uname",
    "vi",
    "wc",
    "wget",
)
_PATH: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}


def base_images(parts: NodeParts) -> dict[str, ImageSource]:
    """Every base image by its repository name."""
    small = tuple(_busybox(parts))
    python = tuple(_python(parts))
    hog = _program("hog.py")
    return {
        "pause": _image((small, [_catatonit(parts)]), "/usr/bin/catatonit", "-P"),
        "counter": _image((small, [_program("counter.sh")]), "/bin/sh", "/opt/counter.sh"),
        "redis": _image(
            (small, tuple(_redis(parts))), "redis-server", "--protected-mode", "no", "--save", ""
        ),
        "hog": _image((small, python, [hog]), "/usr/bin/python3", "-S", "-E", "-u", "/opt/hog.py"),
        "python": _image((small, python, tuple(_system_calls(parts))), "/usr/bin/python3"),
    }


def key(parts: NodeParts) -> str:
    """Changes when any image would: the tree they are taken from and the sources here."""
    state = hashlib.sha256(str(parts.root).encode())
    for source in [Path(__file__), *sorted(PROGRAMS.glob("*.*"))]:
        state.update(source.read_bytes())
    return state.hexdigest()[:12]


def _image(layers: tuple[Iterable[FileEntry], ...], *command: str) -> ImageSource:
    config = ImageConfig(cmd=command, env=_PATH)
    return ImageSource(tuple(tuple(layer) for layer in layers), config)


def _program(name: str) -> FileEntry:
    return FileEntry(f"opt/{name}", source=PROGRAMS / name)


def _busybox(parts: NodeParts) -> Iterable[FileEntry]:
    """A shell and its friends, and the folders every image has (merged /usr, as in Debian)."""
    for folder in (
        "usr",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "dev",
        "proc",
        "sys",
        "run",
        "var",
        "var/log",
        "root",
        "opt",
        "mnt",
    ):
        yield FileEntry(folder)
    yield FileEntry("tmp", mode=0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        yield FileEntry(name, link_target=f"usr/{name}")
    yield FileEntry("var/run", link_target="/run")
    yield FileEntry("usr/bin/busybox", source=parts.root / "usr/bin/busybox")
    for applet in APPLETS:
        yield FileEntry(f"usr/bin/{applet}", link_target="busybox")
    users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    yield FileEntry("etc/passwd", content=users, mode=0o644)
    yield FileEntry("etc/group", content=b"root:x:0:\nnogroup:x:65534:\n", mode=0o644)
    yield FileEntry("etc/os-release", content=b"ID=devnode\nNAME=devnode\n", mode=0o644)


def _catatonit(parts: NodeParts) -> FileEntry:
    """Holds a sandbox's namespaces and reaps what ends in them; one process, as in every cluster."""
    return FileEntry("usr/bin/catatonit", source=parts.root / "usr/bin/catatonit")


def _redis(parts: NodeParts) -> Iterable[FileEntry]:
    binaries = [parts.root / "usr/bin" / name for name in ("redis-server", "redis-cli")]
    for binary in binaries:
        yield FileEntry(f"usr/bin/{binary.name}", source=binary)
    yield from _libraries(parts, binaries)


def _python(parts: NodeParts) -> Iterable[FileEntry]:
    """The interpreter with the modules Debian counts as minimal."""
    version = parts.python_version
    interpreter = parts.root / f"usr/bin/python{version}"
    yield FileEntry(f"usr/bin/python{version}", source=interpreter)
    yield FileEntry("usr/bin/python3", link_target=f"python{version}")
    yield from _libraries(parts, [interpreter])
    listings = (parts.root / "var/lib/dpkg/info").glob(f"libpython{version}-minimal*.list")
    prefix = f"/usr/lib/python{version}/"
    for path in sorted({line for file in listings for line in file.read_text().splitlines()}):
        source = parts.root / path.lstrip("/")
        if path.startswith(prefix) and source.is_file():
            yield FileEntry(path.lstrip("/"), source=source, mode=0o644)


def _system_calls(parts: NodeParts) -> Iterable[FileEntry]:
    """The modules ctypes and mmap, for programs that hold what only the kernel has names for."""
    folder = parts.root / f"usr/lib/python{parts.python_version}"
    modules = [next(folder.glob(f"lib-dynload/{name}.*.so")) for name in ("_ctypes", "mmap")]
    for source in [*folder.glob("ctypes/*.py"), *modules]:
        yield FileEntry(str(source.relative_to(parts.root)), source=source, mode=0o644)
    yield from _libraries(parts, modules)


def _libraries(parts: NodeParts, binaries: Iterable[Path]) -> Iterable[FileEntry]:
    """What the dynamic loader would load for ``binaries``, under the paths where it looks for it."""
    found: dict[str, Path] = {}
    loader = parts.tool("")[:-1]  # the loader itself and its library path
    for binary in binaries:
        listed = subprocess.run(
            [*loader, "--list", str(binary)], check=True, capture_output=True, text=True, timeout=30
        )
        for line in listed.stdout.splitlines():
            left, arrow, right = line.strip().partition(" => ")
            if not arrow:
                continue
            path = Path(right.split(" (")[0])
            # the loader itself is asked for by an absolute path
            inside = f"usr{left}" if left.startswith("/") else str(path.relative_to(parts.root))
            found[inside] = path
    for inside, path in sorted(found.items()):
        yield FileEntry(inside, source=path)
