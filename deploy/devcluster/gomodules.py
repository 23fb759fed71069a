"""Programs built from their released sources, which the Go module proxy serves.

A module's ``replace`` lines count only where it is the main module, so a small module of our own requires it and
repeats them. Kubernetes replaces its libraries by folders of its repository; their released modules are the same.

Source: https://go.dev/ref/mod
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Final

from deploy.devcluster.toolchain import Go
from deploy.devnode.rootfs import LEASHED

LIBRARIES: Final = "k8s.io/"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One module and what to build of it.

    Attributes:
        packages: import paths below the module; the program is called like the last part.
        source: a program of our own that is made of them instead, called like the module's last part.
        tags: build tags.
        stamps: variables that carry the version, ``{version}`` filled in.
        cgo: whether it needs a C compiler, with the libraries it names.
        c_programs: folders of C sources below the module by the program that each one makes.
    """

    name: str
    module: str
    version: str
    packages: tuple[str, ...]
    tags: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    source: str = ""
    cgo: bool = False
    c_programs: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> list[str]:
        """Changes when what is built would."""
        told = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return [f"{name}={value!r}" for name, value, default in told if value != default]


@dataclass(frozen=True, slots=True)
class _Module:
    """A downloaded module."""

    folder: Path
    go_version: str
    replacements: list[str] = field(default_factory=list)


def build(recipe: Recipe, go: Go, out: Path, work: Path, sink: IO[str]) -> None:
    """Build ``recipe`` into the folder ``out``; ``work`` is an empty folder for the module that requires it.

    Raises:
        subprocess.CalledProcessError: the download or the build failed; ``sink`` has why.
    """
    found = _download(recipe, go, work)
    _write_main_module(recipe, found, work)
    go.run(["mod", "tidy"], cwd=work, sink=sink, env={"GOFLAGS": "-mod=mod"})
    stamps = [f"-X {stamp.format(version=recipe.version)}" for stamp in recipe.stamps]
    argv = ["build", "-trimpath", "-ldflags", " ".join(["-s", "-w", *stamps])]
    if recipe.tags:
        argv += ["-tags", " ".join(recipe.tags)]
    env = {"CGO_ENABLED": "1" if recipe.cgo else "0", "GOFLAGS": "-buildvcs=false"}
    if recipe.source:
        target, built = out / recipe.module.rpartition("/")[2], ["."]
    else:
        target, built = out, [f"{recipe.module}/{package}" for package in recipe.packages]
    go.run([*argv, "-o", f"{target}", *built], cwd=work, sink=sink, env=env)
    for name, folder in recipe.c_programs:
        _compile(sorted((found.folder / folder).glob("*.c")), out / name, recipe, sink)


def _compile(sources: list[Path], program: Path, recipe: Recipe, sink: IO[str]) -> None:
    version = f'-DVERSION="{recipe.version}"'
    argv = [*LEASHED, "gcc", "-O2", version, "-o", str(program), *map(str, sources)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)


def _download(recipe: Recipe, go: Go, work: Path) -> _Module:
    wanted = f"{recipe.module}@{recipe.version}"
    folder = Path(json.loads(go.read(["mod", "download", "-json", wanted], cwd=work))["Dir"])
    own = json.loads(go.read(["mod", "edit", "-json", str(folder / "go.mod")], cwd=work))
    replaced = [_replacement(one, recipe) for one in own.get("Replace") or []]
    return _Module(folder, own["Go"], [line for line in replaced if line])


def _replacement(one: dict[str, dict[str, str]], recipe: Recipe) -> str:
    old, new = one["Old"], one["New"]
    if not new["Path"].startswith("."):
        return f"{old['Path']} {old.get('Version', '')} => {new['Path']} {new['Version']}"
    if old["Path"].startswith(LIBRARIES):  # v1.37.2 of Kubernetes is v0.37.2 of its libraries
        return f"{old['Path']} => {old['Path']} {re.sub(r'^v1', 'v0', recipe.version)}"
    return ""


def _write_main_module(recipe: Recipe, found: _Module, work: Path) -> None:
    language = ".".join(found.go_version.split(".")[:2])
    lines = [
        "module devcluster",
        f"go {found.go_version}",
        f"godebug default=go{language}",  # the behaviour that the module was released with
        f"require {recipe.module} {recipe.version}",
        *(f"replace {line}" for line in found.replacements),
    ]
    (work / "go.mod").write_text("\n".join(lines) + "\n")
    imports = "\n".join(f'import _ "{recipe.module}/{package}"' for package in recipe.packages)
    text = f"//go:build programs\n\npackage devcluster\n\n{imports}\n"
    (work / "main.go").write_text(recipe.source or text)
    shutil.copyfile(found.folder / "go.sum", work / "go.sum")
