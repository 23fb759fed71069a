"""Build hook: generate ``snap_protos`` from ``protos/`` before the package is built or installed.

Runs for wheels and for editable installs alike, so a checkout is never without its stubs.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
CHARTER = '"""Generated from protos/ at build; not committed, not edited."""\n'


def generate(root: Path = ROOT) -> Path:
    """Bring ``snap_protos/`` up to date with ``protos/`` and return it.

    The virtual path ``snap_protos`` in front of the protos makes the generated imports absolute
    within our package.

    Raises:
        RuntimeError: protoc refused a file; its own words are on stderr.
    """
    from grpc_tools import protoc  # noqa: PLC0415 - a build requirement, absent at run time

    # protoc looks for the mypy plug-in on PATH; it lies beside the interpreter that runs us
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    sources = sorted((root / "protos").rglob("*.proto"))
    names = [f"snap_protos/{source.relative_to(root / 'protos')}" for source in sources]
    services = [n for n, s in zip(names, sources, strict=True) if "\nservice " in s.read_text()]
    include = f"-Isnap_protos={root / 'protos'}"
    with tempfile.TemporaryDirectory() as scratch:
        plain = [f"--python_out={scratch}", f"--mypy_out=quiet:{scratch}", *names]
        grpc = [f"--grpc_python_out={scratch}", f"--mypy_grpc_out=quiet:{scratch}", *services]
        if protoc.main(["protoc", include, *plain]) or protoc.main(["protoc", include, *grpc]):
            raise RuntimeError("protoc failed; see its message above")
        made = Path(scratch) / "snap_protos"
        for folder in {made, *(path for path in made.rglob("*") if path.is_dir())}:
            (folder / "__init__.py").write_text(CHARTER)
        (made / "py.typed").touch()
        return _replace(made, root / "snap_protos")


def _replace(made: Path, out: Path) -> Path:
    """Make ``out`` equal ``made``, touching only what differs: programs that run now keep their files."""
    fresh = {
        path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()
    }
    for old in [path for path in out.rglob("*") if path.is_file()]:
        if old.relative_to(out) not in fresh and "__pycache__" not in old.parts:
            old.unlink()
    for name, content in fresh.items():
        target = out / name
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".tmp")
            partial.write_bytes(content)
            partial.replace(target)
    return out


class ProtoHook(BuildHookInterface[Any]):
    """Hatchling's custom hook."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        generate(Path(self.root))


if __name__ == "__main__":
    generate()
