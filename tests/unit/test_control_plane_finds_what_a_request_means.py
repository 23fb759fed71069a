"""Clusters, containers, registries and checkpoints by whatever a request calls them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import errors
from controlplane.checkpoints import containers, destinations, lookup, making
from controlplane.checkpoints.commands import CheckpointCommand, PushTarget
from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.clusters.directory import ClusterDirectory
from controlplane.errors import NotFound, SnapError
from controlplane.identity import Actor, Role
from controlplane.store import checkpoints, clusters, registries
from controlplane.store.clusters import ClusterRow
from controlplane.store.database import Store, open_store
from controlplane.store.records import Checkpoint, CheckpointStatus
from controlplane.store.registries import RegistryRow

OLD, NEW = "01HM00000000000000000000AA", "01HM00000000000000000000BB"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


async def add_cluster(store: Store, name: str, url: str = "", registry: str = "") -> None:
    row = ClusterRow(name, kube_api_url=url, registry=registry, repo="team/images")
    await store.write(lambda db: clusters.put(db, row))


async def add_registry(store: Store, name: str, host: str, repo: str = "") -> None:
    row = RegistryRow(name, f"https://{host}/base", host, path="base", repo=repo)
    await store.write(lambda db: registries.put(db, row))


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://a.test:6443", "a"),
        ("a.test:6443/", "a"),
        ("HTTPS://A.TEST:6443", "a"),
        ("https://b.test", "b"),
        ("b.test:443", "b"),
    ],
)
async def test_a_cluster_is_found_by_its_address(store: Store, address: str, wanted: str) -> None:
    await add_cluster(store, "a", "https://a.test:6443")
    await add_cluster(store, "b", "https://b.test")
    assert await ClusterDirectory(store).resolve("", address) == wanted
    assert await ClusterDirectory(store).resolve("a", address) == "a"


async def test_the_only_cluster_needs_no_name(store: Store) -> None:
    directory = ClusterDirectory(store)
    with pytest.raises(NotFound):
        await directory.resolve()
    await add_cluster(store, "a", "https://a.test")
    assert await directory.resolve() == "a"
    await add_cluster(store, "b", "https://a.test")
    with pytest.raises(NotFound, match="several") as several:
        await directory.resolve()
    assert several.value.details == "known clusters: a, b"
    with pytest.raises(NotFound, match="Several"):
        await directory.resolve("", "https://a.test")
    for wrong in (("c", ""), ("", "https://c.test")):
        with pytest.raises(NotFound) as caught:
            await directory.resolve(*wrong)
        assert caught.value.code == errors.CLUSTER_NOT_FOUND


async def test_registries_are_named_or_the_clusters_or_the_only_one(store: Store) -> None:
    async def where(target: str, cluster: str = "a") -> tuple[str, str]:
        wanted = PushTarget(registry=target)
        found = await store.read(lambda db: destinations.resolve(db, wanted, cluster))
        return found.registry.name, found.prefix

    await add_registry(store, "one", "one.test")
    await add_cluster(store, "a")
    assert await where("") == ("one", "base/snap_images")
    await add_registry(store, "two", "two.test", repo="own")
    for nobody in ("", "default"):
        with pytest.raises(NotFound) as caught:
            await where(nobody)
        assert caught.value.code == errors.REGISTRY_NOT_FOUND
    await add_cluster(store, "a", registry="two")
    assert await where("default") == ("two", "base/team/images")
    assert await where("one") == ("one", "base/snap_images")
    assert await where("one.test") == ("one", "base/snap_images")
    assert await where("two", "other") == ("two", "base/own")
    with pytest.raises(NotFound):
        await where("three")


def found_pod(*states: tuple[str, str]) -> FoundPod:
    return FoundPod("n", "uid", tuple(FoundContainer(n, f"id-{n}-{s}", s) for n, s in states))


@pytest.mark.parametrize(
    ("states", "wanted", "chosen"),
    [
        ([("a", "running")], "", ["id-a-running"]),
        ([("a", "running"), ("init", "exited")], "", ["id-a-running"]),
        ([("a", "running"), ("b", "running")], "*", ["id-a-running", "id-b-running"]),
        ([("a", "running"), ("b", "running")], "b", ["id-b-running"]),
        ([("a", "exited"), ("a", "running")], "a", ["id-a-running"]),
    ],
    ids=["only one", "init is over", "all", "named", "restarted"],
)
def test_containers_are_chosen(
    states: list[tuple[str, str]], wanted: str, chosen: list[str]
) -> None:
    found = containers.choose(found_pod(*states), "app", wanted)
    assert [container.container_id for container in found] == chosen


TEMPLATE = {
    "spec": {
        "containers": [{"name": "app"}],
        "initContainers": [{"name": "proxy", "restartPolicy": "Always"}],
    }
}


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("*", ["app"]), ("", ["app"]), ("proxy", ["proxy"])]
)
def test_sidecars_are_chosen_by_their_names_only(wanted: str, chosen: list[str]) -> None:
    pod = found_pod(("proxy", "running"), ("app", "running"), ("debugger", "running"))
    found = containers.choose(pod, "app", wanted, TEMPLATE)
    assert [container.name for container in found] == chosen


def test_a_job_for_all_leaves_sidecars_out_and_names_no_image_by_them() -> None:
    pod = found_pod(("proxy", "running"), ("app", "running"))
    command = CheckpointCommand("default", "app", "*")
    made = making.plan(command, "a", pod, Actor("olga", Role.OPERATOR), TEMPLATE)
    assert [one.container_name for one in made.spec.containers] == ["app"]
    assert [source.named_by.is_one_of_several for source in made.sources] == [False]


def test_a_sidecar_that_runs_alone_is_not_the_pods_container() -> None:
    pod = found_pod(("proxy", "running"), ("app", "exited"))
    with pytest.raises(SnapError) as caught:
        containers.choose(pod, "app", "*", TEMPLATE)
    assert caught.value.code == errors.CHECKPOINT_REFUSED


@pytest.mark.parametrize(
    ("states", "wanted", "code"),
    [
        ([("a", "running"), ("b", "running")], "", errors.VALIDATION_ERROR),
        ([("a", "running")], "c", errors.CONTAINER_NOT_FOUND),
        ([("a", "exited")], "a", errors.CHECKPOINT_REFUSED),
        ([("a", "exited")], "*", errors.CHECKPOINT_REFUSED),
        ([], "", errors.CHECKPOINT_REFUSED),
    ],
)
def test_what_can_not_be_meant_is_refused(
    states: list[tuple[str, str]], wanted: str, code: str
) -> None:
    with pytest.raises(SnapError) as caught:
        containers.choose(found_pod(*states), "app", wanted)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "named",
    [NEW, f"app-{NEW}", f"app-{NEW}.tar", f"/app/checkpoints/app-{NEW}.tar", "app-checkpoint"],
)
async def test_a_checkpoint_has_several_names(store: Store, named: str) -> None:
    await _two_checkpoints(store)
    assert (await store.read(lambda db: lookup.find(db, named))).id == NEW


@pytest.mark.parametrize("named", ["", "..", "../../etc/passwd", "x.tar", "%", f"app-{NEW[:-1]}"])
async def test_names_are_never_paths(store: Store, named: str) -> None:
    await _two_checkpoints(store)
    with pytest.raises(NotFound) as caught:
        await store.read(lambda db: lookup.find(db, named))
    assert caught.value.code == errors.CHECKPOINT_NOT_FOUND


async def test_another_pods_checkpoint_is_not_found(store: Store) -> None:
    await _two_checkpoints(store)
    with pytest.raises(NotFound):
        await store.read(lambda db: lookup.find(db, NEW, "other"))


async def _two_checkpoints(store: Store) -> None:
    for checkpoint_id in (OLD, NEW):
        row = Checkpoint(
            id=checkpoint_id,
            job_id="job",
            cluster="a",
            node="n",
            namespace="default",
            pod_name="app",
            container_name="app",
            filename=f"app-{checkpoint_id}.tar",
            status=CheckpointStatus.COMPLETED,
            owner="ann",
            created_at="2024-01-15T10:30:00.000Z",
        )
        await store.write(lambda db, row=row: checkpoints.insert(db, row))  # type: ignore[misc]
