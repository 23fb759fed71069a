"""The agent as a process of its own, with a workshop in place of a node: ``python -m … <folder>``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from agent import app, logs, settings
from agent.equipment import Equipment
from agent.jobs.runner import Runner
from agent.link.uploads import Uploads
from agent.node import here
from agent.node.vitals import Pulse
from agent.runtimes.commands import Host
from tests.fakes.workshop import FakeArchives, FakeTrust, Workshop, workers


def main() -> None:
    """Serve until SIGTERM."""
    given = settings.from_environment(os.environ)
    logs.set_up("debug", "text")
    shop = Workshop(Path(sys.argv[1]))
    with app.sole(given.data_dir):
        asyncio.run(app.serve(given, _equipment(given, shop)))


def _equipment(given: settings.Settings, shop: Workshop) -> Equipment:
    def node(_: Runner) -> here.Here:
        return here.Here(Host(), "", Pulse(given.data_dir))

    return Equipment(
        workers=workers(shop),
        uploads=Uploads(),
        archives=FakeArchives({}),
        trust=FakeTrust(),
        node=node,
        services=lambda _: {},
    )


if __name__ == "__main__":
    main()
