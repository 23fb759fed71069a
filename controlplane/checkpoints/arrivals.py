"""What becomes of pods that were made to start from a checkpoint, as their nodes' agents tell."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from controlplane.store.records import Restore

_REMEMBERED: Final = 1000  # pods; whoever waits for one has made it just now


class Arrivals:
    """Hears of restores and wakes those who wait for one."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, dict[str, Restore]] = OrderedDict()
        self._changed = asyncio.Event()

    def heard(self, told: Iterable[Restore]) -> None:
        """A node told of these."""
        for one in told:
            self._heard.setdefault(one.pod_uid, {})[one.container_name] = one
            self._heard.move_to_end(one.pod_uid)
        while len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, pod_uid: str, containers: Iterable[str]) -> list[Restore]:
        """How the containers of a pod were started, once each is, or one was not restored."""
        wanted = set(containers)
        while True:
            changed = self._changed
            told = self._heard.get(pod_uid, {})
            if wanted <= told.keys() or any(one.action != "restored" for one in told.values()):
                return [one for name, one in told.items() if name in wanted]
            await changed.wait()
