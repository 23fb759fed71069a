"""containerd's configuration: where it is, what it amounts to, and a handler more.

Source: containerd, docs/cri/config.md (versions 2 and 3, ``runtimes``), docs/man/containerd-config.toml.5
(``imports``); ``containerd config dump`` prints what all files together amount to.
"""

from __future__ import annotations

import asyncio
import posixpath
import tomllib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from agent import errors
from agent.formats import toml_text
from agent.runtimes import commands, daemons
from agent.runtimes.commands import Host

FILE: Final = "/etc/containerd/config.toml"
PLUGINS: Final = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
IMPORTS: Final = "imports"
_GENERATED: Final = "/var/lib/rancher/"  # k3s and RKE2 write theirs anew at each start
_SCRATCH: Final = ".snap-check"
_CALL_S: Final = 20.0
_OWN: Final = ("pod_annotations", "container_annotations", "options", "runtime_path")


@dataclass(frozen=True, slots=True)
class Handler:
    """The handler that is wanted: its name, and the program that stands in front of runc."""

    name: str
    binary: str
    annotations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of the containerd that runs.

    Attributes:
        text: of its main file; empty: there is none.
        version: of the file's format.
        effective: what it amounts to.
    """

    path: str
    text: str
    version: int
    effective: dict[str, Any]

    @property
    def runtimes(self) -> dict[str, Any]:
        """The handlers, by name."""
        return dict(_cri(self.effective).get("runtimes") or {})

    @property
    def default_runtime(self) -> dict[str, Any]:
        """The handler that pods get who ask for none."""
        name = _cri(self.effective).get("default_runtime_name") or "runc"
        return dict(self.runtimes.get(name) or {})


@dataclass(frozen=True, slots=True)
class Edit:
    """A file as it is to be. ``item``: what was added to the list ``imports`` of a file of others."""

    path: str
    text: str
    item: str = ""


async def read(host: Host) -> Config:
    """The configuration of the containerd that runs on ``host``.

    Raises:
        Refused: it can't be changed here. CommandFailed: containerd does not read it.
    """
    daemon = await asyncio.to_thread(daemons.find, host, "containerd")
    path = (daemon.option("--config", "-c") if daemon else "") or FILE
    if path.startswith(_GENERATED):
        raise errors.Refused(
            f"{path} is written anew at each start of the node's Kubernetes; add the handler to its "
            "template (config.toml.tmpl).",
            code=errors.CONFLICT,
        )
    try:
        text = host.path(path).read_text()
        version = int(tomllib.loads(text).get("version", 1 if text.strip() else 0))
    except FileNotFoundError:
        text, version = "", 0
    except (OSError, ValueError) as cause:
        raise errors.Refused(f"{path} can't be read: {cause}.", code=errors.CONFLICT) from cause
    if version == 0:
        done = await commands.run(host, ["containerd", "--version"], timeout_s=_CALL_S)
        version = 2 if " v1." in done.text or " 1." in done.text else 3
    if version not in PLUGINS:
        raise errors.Refused(
            f"{path} is of version {version}, which has no handlers; bring it to version 2 or 3 "
            "(containerd config migrate).",
            code=errors.CONFLICT,
        )
    return Config(path, text, version, await dump(host, path if text else ""))


async def dump(host: Host, path: str) -> dict[str, Any]:
    """What the configuration in ``path`` amounts to ("": without a file).

    Raises:
        CommandFailed: containerd does not take it.
    """
    given = ["--config", path] if path else []
    done = await commands.run(host, ["containerd", *given, "config", "dump"], timeout_s=_CALL_S)
    done.check(f"containerd does not take the configuration {path}.")
    return tomllib.loads(done.text)


async def with_handler(host: Host, config: Config, wanted: Handler) -> tuple[Edit, ...]:
    """The files that give ``config`` the handler and change nothing else, as containerd itself sees it.

    Raises:
        Refused: the name is taken, or no way to add it left the rest as it was.
    """
    if wanted.name in config.runtimes:
        raise errors.Refused(
            f"containerd has a handler {wanted.name} that runs another program than "
            f"{wanted.binary}; remove it.",
            code=errors.CONFLICT,
        )
    part = _part(config, wanted)
    problem = ""
    for edits in _ways(config, part):
        try:
            await _check(host, config, edits, wanted)
        except (errors.CommandFailed, ValueError) as cause:
            problem = getattr(cause, "details", "") or str(cause)
            continue
        return edits
    raise errors.Refused(
        f"The handler {wanted.name} can't be added to {config.path} without changing more than "
        "that; add it by hand (docs/operations.md).",
        code=errors.CONFLICT,
        details=problem[-1000:],
    )


def _cri(effective: dict[str, Any]) -> dict[str, Any]:
    plugins = effective.get("plugins") or {}
    for name in reversed(PLUGINS.values()):
        if found := (plugins.get(name) or {}).get("containerd"):
            return dict(found)
    return {}


def _part(config: Config, wanted: Handler) -> str:
    """The handler as a file of its own: as the default one, but for its program."""
    like = config.default_runtime
    options = {k: v for k, v in (like.get("options") or {}).items() if v not in ("", 0, [])}
    content = {k: v for k, v in like.items() if k not in _OWN and v not in ("", 0, [], {})}
    content |= {
        "runtime_type": "io.containerd.runc.v2",
        "pod_annotations": list(wanted.annotations),
        "options": {**options, "BinaryName": wanted.binary},
    }
    path = ("plugins", PLUGINS[config.version], "containerd", "runtimes", wanted.name)
    note = "# Written by the SNAP agent (prepare); its undo removes it.\n"
    return f"{note}version = {config.version}\n{toml_text.table(path, content)}"


def _ways(config: Config, part: str) -> tuple[tuple[Edit, ...], ...]:
    """How the part can be added, best first: a file where files are looked for, an import, the file itself."""
    folder = posixpath.dirname(config.path)
    if not config.text:
        return ((Edit(config.path, part),),)
    ways: list[tuple[Edit, ...]] = []
    for pattern in tomllib.loads(config.text).get(IMPORTS, []):
        where = PurePosixPath(folder, pattern)
        if where.name in ("*", "*.toml") and "*" not in str(where.parent):
            ways.append((Edit(str(where.with_name("90-snap.toml")), part),))
    own = f"{folder}/snap.toml"
    try:
        changed = toml_text.with_item(config.text, IMPORTS, own)
        ways.append((Edit(own, part), Edit(config.path, changed, own)))
    except ValueError:
        pass
    section = part.split("\n", 2)[2]
    joint = "" if config.text.endswith("\n") else "\n"
    ways.append((Edit(config.path, f"{config.text}{joint}\n{section}"),))
    return tuple(ways)


async def _check(host: Host, config: Config, edits: tuple[Edit, ...], wanted: Handler) -> None:
    """Whether ``edits`` give exactly the handler, tried beside the files that are in use.

    Raises:
        CommandFailed: containerd does not take them. ValueError: something else would change, too.
    """
    folder = posixpath.dirname(config.path)
    main, part = f"{folder}/{_SCRATCH}.toml", f"{folder}/{_SCRATCH}-part"
    files = {edit.path: edit.text for edit in edits}
    text = files.pop(config.path, config.text)
    for path, content in files.items():
        text = toml_text.with_item(toml_text.without_item(text, IMPORTS, path), IMPORTS, part)
        host.path(part).write_text(content)
    try:
        host.path(folder).mkdir(parents=True, exist_ok=True)
        host.path(main).write_text(text)
        after = await dump(host, main)
    finally:
        for path in (main, part):
            host.path(path).unlink(missing_ok=True)
    made = _cri(after).get("runtimes", {}).get(wanted.name, {})
    if (made.get("options") or {}).get("BinaryName") != wanted.binary:
        raise ValueError("containerd does not see the handler")
    if _rest(after, wanted.name) != _rest(config.effective, wanted.name):
        raise ValueError("containerd would see more changes than the handler")


def _rest(effective: dict[str, Any], name: str) -> dict[str, Any]:
    """``effective`` without the handler ``name`` and without the list of files."""
    rest = {key: value for key, value in effective.items() if key != IMPORTS}
    plugins = dict(rest.get("plugins") or {})
    for key in PLUGINS.values():
        if cri := (plugins.get(key) or {}).get("containerd"):
            runtimes = {k: v for k, v in (cri.get("runtimes") or {}).items() if k != name}
            plugins[key] = {**plugins[key], "containerd": {**cri, "runtimes": runtimes}}
    return {**rest, "plugins": plugins}
