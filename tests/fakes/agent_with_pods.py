"""The real agent as a process, with a workshop for a node and one pod: ``python -m … <folder>``."""

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
from agent.node.facts import FoundPod, PodContainer
from agent.node.vitals import Pulse
from agent.runtimes.commands import Host
from tests.fakes.workshop import FakeArchives, FakeTrust, Workshop, workers

ARCHIVE = bytes(range(256)) * 40_000


class WithPods(here.Here):
    """A node whose runtime has the pod ``default/app``."""

    async def find_pod(self, namespace: str, pod_name: str) -> FoundPod | None:
        if (namespace, pod_name) != ("default", "app"):
            return None
        image = "docker.io/library/redis@sha256:" + "12" * 32
        container = PodContainer("app", "id-app", "running", "redis", image)
        return FoundPod("uid-1", pod_name, namespace, True, (("app", "app"),), (container,))

    async def pods(self) -> tuple[FoundPod, ...]:
        pod = await self.find_pod("default", "app")
        return (pod,) if pod else ()


class AnyArchive(FakeArchives):
    """The same archive for every checkpoint."""

    def open(self, checkpoint_id):  # type: ignore[no-untyped-def]
        self.contents.setdefault(checkpoint_id, ARCHIVE)
        return super().open(checkpoint_id)


def main() -> None:
    """Serve until SIGTERM."""
    given = settings.from_environment(os.environ)
    logs.set_up("debug", "text")
    shop = Workshop(Path(sys.argv[1]))

    def node(_: Runner) -> here.Here:
        return WithPods(Host(), "", Pulse(given.data_dir))

    equipment = Equipment(
        workers=workers(shop),
        uploads=Uploads(),
        archives=AnyArchive({}),
        trust=FakeTrust(),
        node=node,
        services=lambda _: {},
    )
    with app.sole(given.data_dir):
        asyncio.run(app.serve(given, equipment))


if __name__ == "__main__":
    main()
