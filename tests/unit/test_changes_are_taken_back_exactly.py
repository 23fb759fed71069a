"""What preparing changed on a node's disk is on record before it is made, and is taken back exactly."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.formats import toml_text
from agent.node.changes import Changes, File
from agent.runtimes.commands import Host

FOLDER = "/var/lib/snap/prepare"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with one file of an operator's."""
    (tmp_path / "etc/containerd").mkdir(parents=True)
    config = tmp_path / "etc/containerd/config.toml"
    config.write_text('version = 3\n[grpc]\n  address = "/run/c.sock"\n')
    config.chmod(0o640)
    return tmp_path


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """All of the node but the record."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            str(path.readlink())
            if path.is_symlink()
            else path.read_text()
            if path.is_file()
            else "",
        )
        for path in root.rglob("*")
        if "var" not in path.relative_to(root).parts
    }


def everything(changes: Changes, image: Path) -> None:
    """One change of each kind."""
    text = toml_text.with_item(
        changes._host.path("/etc/containerd/config.toml").read_text(), "imports", "/etc/s.toml"
    )
    changes.file(File("/opt/snap/bin/snap-runc", b"#!/bin/sh\n", 0o755))
    changes.tree("/opt/snap/criu", image, "4.1.1")
    changes.link("/opt/snap/bin/criu", "../criu/bin/criu")
    changes.file(File("/etc/s.toml", b"version = 3\n", config=True))
    main = "/etc/containerd/config.toml"
    changes.file(File(main, text.encode(), 0o640, item="/etc/s.toml", config=True))


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the agent's image brings along."""
    folder = tmp_path_factory.mktemp("image") / "criu"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/criu").write_text("#!/bin/sh\n")
    return folder


def test_all_of_it_is_as_before(root: Path, image: Path) -> None:
    before = tree(root)
    changes = Changes(Host(root), FOLDER)
    everything(changes, image)
    assert (root / "opt/snap/bin/criu").read_text() == "#!/bin/sh\n"
    after = tree(root)
    everything(changes, image)
    assert tree(root) == after
    again = Changes(Host(root), FOLDER)  # another agent
    assert again.take_back_config() == ()
    assert again.record.restart
    assert again.take_back(again.record.changes) == ()
    assert tree(root) == before
    assert not list((root / "var/lib/snap/prepare").glob("before-*"))


class Died(BaseException):
    """The agent was killed."""


@pytest.mark.parametrize("at", range(1, 16))
def test_a_crash_anywhere_is_repaired(
    root: Path, image: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before = tree(root)
    left = [at]

    def dying(original: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            left[0] -= 1
            if not left[0]:
                raise Died
            return original(*arguments)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Changes, "_write", dying(Changes._write))
        with contextlib.suppress(Died):
            everything(Changes(Host(root), FOLDER), image)
    forward = Changes(Host(root), FOLDER)
    everything(forward, image)
    whole = tree(root)
    left[0] = at
    with monkeypatch.context() as patched:
        patched.setattr(Changes, "_write", dying(Changes._write))
        with contextlib.suppress(Died):
            forward.take_back(forward.record.changes)
    assert whole != before
    back = Changes(Host(root), FOLDER)
    assert back.take_back(back.record.changes) == ()
    assert tree(root) == before


def test_what_others_changed_since_stays(root: Path, image: Path) -> None:
    changes = Changes(Host(root), FOLDER)
    everything(changes, image)
    main = root / "etc/containerd/config.toml"
    main.write_text(main.read_text() + "# mine\n")
    (root / "opt/snap/bin/snap-runc").write_text("#!/bin/sh\n# mine\n")
    (root / "opt/snap/bin/own").touch()
    kept = changes.take_back(changes.record.changes)
    assert kept == ("/opt/snap/bin/snap-runc",)
    assert main.read_text() == 'version = 3\n[grpc]\n  address = "/run/c.sock"\n# mine\n'
    assert {path.name for path in (root / "opt/snap/bin").iterdir()} == {"snap-runc", "own"}


def test_a_new_version_of_ours_still_goes_back_to_what_was_there(root: Path, image: Path) -> None:
    (root / "opt/snap/bin").mkdir(parents=True)
    (root / "opt/snap/bin/snap-runc").write_text("an operator's")
    before = tree(root)
    changes = Changes(Host(root), FOLDER)
    for content in (b"one", b"two"):
        assert changes.file(File("/opt/snap/bin/snap-runc", content, 0o755))
    shutil.copytree(image, root / "copy")
    changes.tree("/opt/snap/criu", image, "4.1.1")
    changes.tree("/opt/snap/criu", root / "copy", "4.2.1")
    shutil.rmtree(root / "copy")
    assert changes.take_back(changes.record.changes) == ()
    assert tree(root) == before
