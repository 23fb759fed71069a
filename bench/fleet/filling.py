"""A store in which every agent's jobs are running, each of some user."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.api import servers
from bench.api.servers import Served
from bench.fleet import plan
from controlplane.identity import Actor, Role
from controlplane.store import jobs
from controlplane.store.database import locked_database
from controlplane.store.records import CheckpointSpec, ContainerTarget, JobKind, JobSpec, JobState
from controlplane.store.requests import NewJob

_REGISTRY: Final = {"name": "reg", "url": "https://registry.test:5000"}
_CLUSTER: Final = {
    "name": plan.CLUSTER,
    "api_server_url": "https://api.test:6443",
    "registry_name": "reg",
}


def set_up(served: Served, users: int) -> tuple[str, str]:
    """Make the cluster and ``users`` users; (join token, CA)."""
    _post(served, "/config/registry/create", _REGISTRY | {"username": "robot", "password": "push"})
    _post(served, "/config/clusters/create", _CLUSTER)
    for number in range(users):
        account = {"username": f"user-{number}", "password": servers.PASSWORD, "role": "viewer"}
        _post(served, "/config/user/create", account)
    given = _post(served, f"/config/clusters/{plan.CLUSTER}/agent-token", {})
    return str(given["token"]), str(given["ca_pem"])


def fill(data_dir: Path, jobs_of: Sequence[int], users: int) -> None:
    """Store that these jobs run: ``jobs_of[n]`` on the agent ``n``. The control plane is stopped."""
    with locked_database(data_dir) as database:
        database.execute("BEGIN")
        for number, count in enumerate(jobs_of):
            for which in range(count):
                new = _job(number, which, users)
                stored = jobs.insert(database, new)
                going = msgspec.structs.replace(stored, state=JobState.RUNNING, message="Running")
                jobs.update(database, going, changed_state=True)
        database.execute("COMMIT")


def _job(number: int, which: int, users: int) -> NewJob:
    target = ContainerTarget(checkpoint_id=plan.job(number, which), container_name="app")
    spec = CheckpointSpec(namespace="default", pod_name=f"app-{number}", containers=(target,))
    return NewJob(
        kind=JobKind.CHECKPOINT,
        cluster=plan.CLUSTER,
        node=plan.node(number),
        spec=JobSpec(checkpoint=spec),
        actor=Actor(plan.owner(number, which, users), Role.OPERATOR),
        task_name="Checkpoint",
        namespace="default",
        job_id=plan.job(number, which),
    )


def _post(served: Served, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {served.token}"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status not in (200, 201):
        raise RuntimeError(f"POST {path}: {answer.status} {content[:300]!r}")
    decoded: Mapping[str, object] = json.loads(content)
    return decoded
