"""``snap-api``: serve, print the OpenAPI document, back up, restore, change the key."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# before gRPC is loaded: its C core writes lines of its own to stderr otherwise
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import controlplane
from controlplane import app, logs, settings
from controlplane.api import assembly
from controlplane.errors import SnapError
from controlplane.garbage import SetAside
from controlplane.settings import Settings
from controlplane.store import backup, rotation, secrets

_log = logging.getLogger("controlplane")
_COMMANDS = ("serve", "openapi", "backup", "restore", "rotate-key")
_WITH_PATH = frozenset({"backup", "restore"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status: 2 for a wrong argument or setting, 1 where it can't go on."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.command in _WITH_PATH) != (options.path is not None):
        parser.error("backup and restore take a PATH, the other commands none")
    try:
        if options.command == "openapi":
            return _print_openapi()
        chosen = settings.read()
        logs.begin(chosen)
        if options.command == "backup":
            return _back_up(chosen, options.path)
        if options.command == "restore":
            return _restore(chosen, options.path)
        if options.command == "rotate-key":
            return _rotate(chosen)
        for warning in settings.warnings():
            _log.warning("%s", warning)
        SetAside().begin()
        asyncio.run(app.run(chosen))
    except settings.SettingError as failure:
        sys.stderr.write(f"snap-api: {failure}\n")
        return 2
    except SnapError as failure:
        details = f" ({failure.details})" if failure.details else ""
        sys.stderr.write(f"snap-api: {failure.message}{details}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snap-api",
        description="The SNAP control plane: REST, WebSocket, and the server that agents dial.",
        epilog="settings, read from the environment:\n" + settings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"snap-api {controlplane.__version__}"
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=_COMMANDS,
        default="serve",
        help="serve (default); print the OpenAPI document; back up to PATH while it runs; restore from PATH, "
        "or seal the stored secrets with a new key, while it is stopped",
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="the backup, a tar")
    return parser


def _print_openapi() -> int:
    sys.stdout.buffer.write(assembly.description())
    return 0


def _back_up(chosen: Settings, target: Path) -> int:
    size_bytes = backup.backup(chosen.data_dir, chosen.secret_key_file, target)
    key = secrets.key_path(chosen.data_dir, chosen.secret_key_file)
    sys.stdout.write(
        f"Wrote {target} ({size_bytes} bytes): the database and the TLS identity.\n"
        f"It does not hold the key file {key}, without which its secrets can't be opened: keep a copy of that "
        "file in another safe place.\n"
        f"Uploaded archives ({chosen.data_dir / 'uploads'}) are not in it either.\n"
    )
    return 0


def _restore(chosen: Settings, source: Path) -> int:
    done = backup.restore(chosen.data_dir, chosen.secret_key_file, source)
    sys.stdout.write(f"Restored {chosen.data_dir} from {source}.\n")
    if done.kept is not None:
        sys.stdout.write(
            f"The database that was there is now {done.kept}; remove it when all is well.\n"
        )
    return 0


def _rotate(chosen: Settings) -> int:
    done = rotation.rotate(chosen.data_dir, chosen.secret_key_file)
    sys.stdout.write(f"Sealed {done.resealed} secrets with the key {done.key_id}.\n")
    if done.old_key_gone:
        sys.stdout.write(
            f"The key file {done.key_file} holds only that one now; keep a copy of it.\n"
        )
    else:
        sys.stdout.write(
            f"The key file {done.key_file} can't be written from here: leave only its first line in it.\n"
        )
    sys.stdout.write("Backups made before need the key from before.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
