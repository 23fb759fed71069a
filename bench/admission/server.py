"""``python -m bench.admission.server FOLDER WORKLOADS NODES``: a listener with an index out of a store of that size.

Prints its port and who vouches for it as one line of JSON, then answers until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
from sqlite_utils import Database

from bench.admission import reviews
from controlplane.hook.admission import Answer, Policy, answer
from controlplane.hook.authority import Authority, Wanted
from controlplane.hook.index import ClusterSeen, Index
from controlplane.hook.listener import Listener
from controlplane.hook.nodes import read_node
from controlplane.kube.asking import asks
from controlplane.settings import Address
from controlplane.store import checkpoints, clock, grants, starts, workloads
from controlplane.store.database import open_store
from controlplane.store.grants import GrantRow
from controlplane.store.records import Checkpoint, CheckpointStatus, Image
from controlplane.store.workloads import WorkloadRow
from controlplane.workload import Workload

PATH: Final = "/hook/bench/0123456789abcdef0123456789abcdef"
KEY: Final = b"k" * 32
_POLICY: Final = Policy("bench", key=KEY)


async def serve(folder: Path, count: int, nodes: int) -> None:
    """Answer until standard input is closed."""
    store = open_store(folder)
    try:
        await store.write(lambda db: _fill(db, count))
        index = await store.read(lambda db: Index(workloads.offers(db), starts.everything(db)))
    finally:
        store.close()
    seen = ClusterSeen(True, [read_node(reviews.node(number)) for number in range(nodes)])

    def answering(review: object) -> Answer:
        return answer(review, _POLICY, index, seen)

    authority = Authority(folder / "hook-tls")
    authority.ensure(Wanted(frozenset({"localhost"}), timedelta(days=1)))
    listener = Listener(Address("127.0.0.1", 0))
    listener.open(PATH, answering)
    await listener.start(authority.load())
    print(json.dumps({"port": listener.port, "ca": authority.bundle_pem}), flush=True)
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await listener.stop()


def _fill(db: Database, count: int) -> None:
    """One checkpoint of each of ``count`` workloads."""
    for number in range(count):
        workload = reviews.workload(number)
        digest = f"sha256:{number:064x}"
        checkpoint = _checkpoint(workload, number)
        checkpoints.insert(db, checkpoint)
        image = f"registry.example:5000/snap/{workload.owner_name}:x"
        checkpoints.put_image(
            db, Image(checkpoint_id=checkpoint.id, image=image, registry="r", digest=digest)
        )
        pod = reviews.pod(number)
        wants = asks(pod["spec"], pod["spec"]["containers"][0], KEY)
        workloads.put(db, WorkloadRow(checkpoint.id, workload, "", wants))
        names = msgspec.json.encode([workload.namespace]).decode()
        where = (digest, "bench", names, checkpoint.id, "bench", clock.now(), clock.now(60.0))
        grants.put(db, GrantRow(*where, b"", b""))


def _checkpoint(workload: Workload, number: int) -> Checkpoint:
    checkpoint_id = clock.new_ulid()
    return Checkpoint(
        id=checkpoint_id,
        job_id=checkpoint_id,
        cluster="bench",
        node="node-1",
        namespace=workload.namespace,
        pod_name=f"{workload.owner_name}-{number}",
        container_name=workload.container,
        filename=f"{number}-{checkpoint_id}.tar",
        status=CheckpointStatus.COMPLETED,
        owner="bench",
        created_at=clock.now(),
        fingerprint_json='{"architecture":"amd64","kernel":"6.1.0"}',
    )


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
