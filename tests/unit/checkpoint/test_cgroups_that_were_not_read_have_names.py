"""A dump that left the cgroups alone still says where its tasks were, as every restore needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats import cgroup_folders, criu_images
from snap_protos.criu import images_pb2 as pb

UNKNOWN = b"\xf8\x01\x2a"  # field 31, which our subset of the format does not know
POD = "/kubepods/pod1/c1"


def dumped(
    images: Path, *sets: dict[str, str], folders: tuple[pb.cgroup_dir_entry, ...] = ()
) -> Path:
    """An image with one set of cgroups (controllers → path) for each entry of ``sets``."""
    entry = pb.cgroup_entry()
    for number, members in enumerate(sets):
        group = entry.sets.add(id=number + 2)
        for name, path in members.items():
            group.ctls.add(name=name, path=path)
    for names in (["cpu", "cpuacct"], ["pids"], ["name=systemd"], [""], ["rdma"]):
        entry.controllers.add(cnames=names, dirs=folders)
    image = images / "cgroup.img"
    message = entry.SerializeToString() + UNKNOWN
    image.write_bytes(criu_images.build(criu_images.magic(0x59383330), [message]))
    return image


def named(image: Path) -> list[dict[str, list[str]]]:
    """By controller: the folders that the image names, and what is below each."""
    entry = pb.cgroup_entry.FromString(criu_images.first(image.read_bytes()))
    return [
        {one.dir_name: [below.dir_name for below in one.children] for one in controller.dirs}
        for controller in entry.controllers
    ]


def everywhere(path: str) -> dict[str, str]:
    return {"cpu,cpuacct": path, "name=systemd": path, "pids": path, "": "/"}


def test_each_hierarchy_gets_its_tasks_cgroup(tmp_path: Path) -> None:
    image = dumped(tmp_path, everywhere(POD))
    assert cgroup_folders.complete(tmp_path)
    pod: dict[str, list[str]] = {POD[1:]: []}
    assert named(image) == [pod, pod, pod, {"": []}, {}]
    assert UNKNOWN in image.read_bytes()
    assert not cgroup_folders.complete(tmp_path)  # a settling that was interrupted goes on


def test_a_cgroup_made_at_the_last_moment_lies_below(tmp_path: Path) -> None:
    image = dumped(tmp_path, everywhere(POD), {**everywhere(POD), "pids": f"{POD}/own/deep"})
    assert cgroup_folders.complete(tmp_path)
    cpu, pids, *_ = named(image)
    assert cpu == {POD[1:]: []}
    assert pids == {POD[1:]: ["own/deep"]}


def test_cgroups_side_by_side_are_both_there(tmp_path: Path) -> None:
    image = dumped(tmp_path, everywhere(POD), everywhere(f"{POD}-other"))
    assert cgroup_folders.complete(tmp_path)
    assert named(image)[0] == {POD[1:]: [], f"{POD[1:]}-other": []}


def test_what_criu_read_itself_stays(tmp_path: Path) -> None:
    folder = pb.cgroup_dir_entry(dir_name="kubepods/pod1/c1")
    folder.properties.add(name="pids.max", value="7")
    image = dumped(tmp_path, everywhere(POD), folders=(folder,))
    before = image.read_bytes()
    assert not cgroup_folders.complete(tmp_path)
    assert image.read_bytes() == before


def test_without_cgroups_there_is_nothing_to_name(tmp_path: Path) -> None:
    assert not cgroup_folders.complete(tmp_path)
    (tmp_path / "cgroup.img").write_bytes(criu_images.magic(0x59383330))
    assert not cgroup_folders.complete(tmp_path)


@pytest.mark.parametrize("content", [b"", criu_images.magic(1) + criu_images.frame(b"\xff")])
def test_a_damaged_image_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cgroup.img").write_bytes(content)
    with pytest.raises(ValueError, match="CRIU image"):
        cgroup_folders.complete(tmp_path)
