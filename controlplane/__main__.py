"""``snap-api``: serve, or print the OpenAPI document."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import controlplane
from controlplane import app, logs, settings
from controlplane.api import assembly
from controlplane.errors import SnapError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "openapi":
            return _print_openapi()
        chosen = settings.read()
        logs.begin(chosen)
        asyncio.run(app.run(chosen))
    except settings.SettingError as failure:
        sys.stderr.write(f"snap-api: {failure}\n")
        return 1
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
        choices=("serve", "openapi"),
        default="serve",
        help="serve (default), or print the OpenAPI document and end",
    )
    return parser


def _print_openapi() -> int:
    sys.stdout.buffer.write(assembly.description())
    return 0


if __name__ == "__main__":
    sys.exit(main())
