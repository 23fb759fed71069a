"""The command ``snap-agent``: run the agent, or say what this node can do."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from dataclasses import asdict

# before gRPC is loaded: its C core writes lines of its own to stderr otherwise
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import agent
from agent import app, equipment, errors, heap, logs, settings
from agent.node import here, table

log = logging.getLogger("agent")


def main(argv: list[str] | None = None) -> int:
    """Run ``snap-agent`` and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        given = settings.from_environment(os.environ)
        os.environ.pop("SNAP_AGENT_TOKEN", None)
        logs.set_up(given.log_level, given.log_format)
        _check_root(given)
        if arguments.command == "probe":
            return asyncio.run(_probe(given, as_json=arguments.json))
        given.check_to_run()
        return _run(given)
    except settings.SettingsError as wrong:
        sys.stderr.write(f"snap-agent: {wrong}\n")
        return 2


def _check_root(given: settings.Settings) -> None:
    """Raise SettingsError unless the node is seen where it should be."""
    if not (given.host_root / "proc").is_dir():
        raise settings.SettingsError(
            f"SNAP_HOST_ROOT must be where the node's file system is seen; {given.host_root} has no /proc."
        )


def _run(given: settings.Settings) -> int:
    heap.share_arenas()
    for warning in given.warnings():
        log.warning("%s", warning)
    try:
        asyncio.run(app.run(given))
    except (errors.SnapError, OSError, ExceptionGroup) as failure:
        return _failed(failure)
    return 0


def _failed(failure: Exception) -> int:
    """Say why the agent ended, in one sentence where it is known what that means."""
    cause = failure
    while isinstance(cause, ExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    match cause:
        case errors.SnapError():
            log.error("%s", cause.message)
        case OSError():
            log.error("The agent can't go on: %s", cause)
        case _:
            log.error("The agent failed in a way that nobody foresaw", exc_info=failure)
    return 1


async def _probe(given: settings.Settings, *, as_json: bool) -> int:
    host = app.host_of(given)
    found = await here.take(host, given.cri_endpoint, equipment.kubelet_of(given, host))
    if as_json:
        told = {"node": given.node, "ready": found.ready, **asdict(found)}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        sys.stdout.write(table.render(given.node, found))
    return 0 if found.ready else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snap-agent",
        description="SNAP's agent: checkpoints, pushes and restores containers of the node it runs on.",
        epilog=settings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"snap-agent {agent.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("run", help="join the control plane and work (the default)")
    probe = commands.add_parser(
        "probe", help="say what this node can do; exit status 0 if it is ready"
    )
    probe.add_argument("--json", action="store_true", help="as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
