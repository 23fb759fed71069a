"""A real node that nobody prepared: the handler comes, its containers live on, and all of it goes again."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from agent import errors
from agent.node import here
from agent.node.prepare import Preparer, Tools
from agent.runtimes import commands, containerd, cri, daemons
from agent.runtimes.commands import Host
from deploy.devnode import containerd as devnode
from deploy.devnode.node import HELPERS, Node
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import World

pytestmark = pytest.mark.node
DATA = "/var/lib/snap-prepare"
RESTART = "pkill -x containerd"  # the node's init starts it again


@dataclass
class Bare:
    """A node without handler, wrapper and helpers, and what would prepare it."""

    node: Node
    pods: Pods
    host: Host
    runtime: cri.Client
    criu: Path = Path("/nonexistent")
    restart: str = RESTART
    owner: str = "pod-1"

    @property
    def preparer(self) -> Preparer:
        """As an agent that has just started has it."""
        scripts = {name: source.read_bytes() for name, source in HELPERS.items()}
        look = partial(here.take, self.host, "", None)
        return Preparer(
            Tools(self.host, DATA, self.runtime, scripts, self.restart, look, self.criu, self.owner)
        )

    def files(self) -> dict[str, tuple[int, bytes]]:
        """What preparing may change."""
        found = {}
        for folder in ("/etc/containerd", "/opt/snap/bin", "/opt/snap/criu", "/usr/local/sbin"):
            for path in self.host.path(folder).rglob("*"):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (path.lstat().st_mode, content)
        return found

    def counter(self, handler: str = "") -> Pod:
        """A pod that ticks."""
        return self.pods.run(PodSpec(name=f"p{time.time_ns()}", image="counter", handler=handler))


@pytest.fixture
async def bare(node2: Node, pods2: Pods, world: World) -> AsyncIterator[Bare]:
    """Node 2 as nobody prepared it; as it was afterwards."""
    node2.make_bare()
    host = Host(node2.root, tuple(node2.argv([])))
    try:
        async with cri.Client(host, cri.find_socket(host)) as runtime:
            yield Bare(node2, pods2, host, runtime)
    finally:
        pods2.remove_all()
        shutil.rmtree(host.path(DATA), ignore_errors=True)
        shutil.rmtree(host.path("/opt/snap/criu"), ignore_errors=True)
        for name in ("snap.toml", "conf.d/90-snap.toml"):
            host.path(f"/etc/containerd/{name}").unlink(missing_ok=True)
        node2.equip()


def goes_on(pod: Pod) -> bool:
    """Whether it ticks within a few seconds."""
    before = len(pod.lines())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(pod.lines()) > before:
            return True
        time.sleep(0.02)
    return False


async def test_the_handler_comes_and_goes_and_containers_live_on(bare: Bare) -> None:
    before = bare.files()
    pod = bare.counter()
    assert "snap" not in (await bare.runtime.status()).handlers
    await bare.preparer.prepare(lambda _: None)
    status = await bare.runtime.status()
    assert "snap" in status.handlers
    found = await here.take(bare.host, "", None)
    assert "runtime" in found.facts.restore_drivers
    assert found.reasons == ()
    assert goes_on(pod)

    containerd_was = bare.node.containerd_pid()
    after = bare.files()
    await bare.preparer.prepare(lambda _: None)  # a second time nothing is left to do
    assert bare.files() == after
    assert bare.node.containerd_pid() == containerd_was

    user = bare.counter("snap")
    with pytest.raises(errors.Refused, match=user.spec.name):
        await bare.preparer.undo(lambda _: None)
    assert bare.files() == after
    bare.pods.remove(user)
    await bare.preparer.undo(lambda _: None)
    assert bare.files() == before
    assert "snap" not in (await bare.runtime.status()).handlers
    assert goes_on(pod)
    await bare.preparer.undo(lambda _: None)  # nothing is left to be taken back
    assert bare.files() == before


async def test_what_was_undone_stays_so_until_it_is_asked_for_or_a_new_pod_comes(
    bare: Bare,
) -> None:
    await bare.preparer.prepare_at_start(lambda _: None)
    await bare.preparer.undo(lambda _: None)
    await bare.preparer.prepare_at_start(lambda _: None)  # the same pod's agent, started anew
    assert "snap" not in (await bare.runtime.status()).handlers
    bare.owner = "pod-2"
    await bare.preparer.prepare_at_start(lambda _: None)
    assert "snap" in (await bare.runtime.status()).handlers
    await bare.preparer.undo(lambda _: None)
    await bare.preparer.prepare(lambda _: None)  # asked for
    await bare.preparer.prepare_at_start(lambda _: None)
    assert "snap" in (await bare.runtime.status()).handlers


VERSION_2 = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      NoNewKeyring = true
"""


def _version_2(bare: Bare) -> str:
    return VERSION_2.format(pause=f"{bare.node.instance.base_registry}/pause:latest")


def _with_imports(bare: Bare) -> str:
    text = devnode.config(bare.node.instance, handler=False)
    folder = bare.host.path("/etc/containerd/conf.d")
    folder.mkdir(exist_ok=True)
    return text.replace(
        "version = 3\n", 'version = 3\nimports = ["/etc/containerd/conf.d/*.toml"]\n'
    )


@pytest.mark.parametrize(
    ("config", "added"),
    [(_version_2, "snap.toml"), (_with_imports, "conf.d/90-snap.toml")],
    ids=["version 2", "imports"],
)
async def test_configurations_of_other_shapes(
    bare: Bare, config: Callable[[Bare], str], added: str
) -> None:
    bare.node.configure(config(bare))
    before = bare.files()
    was = (await containerd.read(bare.host)).effective
    await bare.preparer.prepare(lambda _: None)
    now = await containerd.read(bare.host)
    assert containerd._rest(now.effective, "snap") == containerd._rest(was, "snap")
    default = {k: v for k, v in (now.default_runtime.get("options") or {}).items() if v}
    mine = {k: v for k, v in now.runtimes["snap"]["options"].items() if v}
    assert mine == {**default, "BinaryName": devnode.WRAPPER}
    assert bare.host.path(f"/etc/containerd/{added}").is_file()
    assert goes_on(bare.counter("snap"))
    bare.pods.remove_all()
    await bare.preparer.undo(lambda _: None)
    assert bare.files() == before


async def test_a_runtime_that_does_not_come_back_gets_its_old_configuration(bare: Bare) -> None:
    before = bare.files()
    pod = bare.counter()
    bare.restart = "false"
    with pytest.raises(errors.CommandFailed, match="started anew"):
        await bare.preparer.prepare(lambda _: None)
    left = {path for path in bare.files() if path not in before}
    assert all("/opt/snap/bin" in path for path in left)  # what was installed stays
    bare.restart = ""  # and no systemd
    with pytest.raises(errors.Refused, match="SNAP_RUNTIME_RESTART"):
        await bare.preparer.prepare(lambda _: None)
    assert goes_on(pod)
    bare.restart = RESTART
    await bare.preparer.prepare(lambda _: None)
    assert "snap" in (await bare.runtime.status()).handlers
    await bare.preparer.undo(lambda _: None)
    assert bare.files() == before


async def test_a_handler_of_that_name_by_somebody_else_is_left_alone(bare: Bare) -> None:
    text = devnode.config(bare.node.instance).replace(devnode.WRAPPER, "/usr/bin/runc")
    bare.node.configure(text)
    with pytest.raises(errors.Refused, match="another program"):
        await bare.preparer.prepare(lambda _: None)
    assert bare.host.path(devnode.CONFIG).read_text() == text


async def test_an_agent_killed_in_the_middle_is_followed_by_one_that_goes_on(bare: Bare) -> None:
    before = bare.files()
    bare.restart = "sleep 60"  # it dies while the runtime is being started anew
    dying = asyncio.create_task(bare.preparer._prepare(lambda _: None))
    async with asyncio.timeout(60):
        while not bare.host.path("/etc/containerd/snap.toml").is_file():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    commands_left = asyncio.create_task(_freeze(dying))
    await commands_left
    bare.restart = RESTART
    await bare.preparer.prepare(lambda _: None)
    assert "snap" in (await bare.runtime.status()).handlers
    await bare.preparer.undo(lambda _: None)
    assert bare.files() == before


async def _freeze(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_nothing_is_started_anew_while_a_dump_runs(bare: Bare) -> None:
    stand_in = bare.host.path("/usr/local/bin/criu")  # by its name only
    shutil.copyfile(bare.host.path("/bin/sleep"), stand_in)
    stand_in.chmod(0o755)
    process = await asyncio.create_subprocess_exec(*bare.host.prefix, "/usr/local/bin/criu", "600")
    was = bare.node.containerd_pid()
    try:
        async with asyncio.timeout(60):
            while not daemons.busy(bare.host):  # noqa: ASYNC110 - another program's doing
                await asyncio.sleep(0.01)
        stand_in.unlink()
        preparing = asyncio.create_task(bare.preparer.prepare(lambda _: None))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.shield(preparing)
        assert bare.node.containerd_pid() == was
    finally:
        process.kill()
        await process.wait()
    await preparing
    assert bare.node.containerd_pid() != was


@pytest.fixture
def brought(bare: Bare, tmp_path: Path) -> Iterator[Path]:
    """CRIU as the agent's image brings it: the node's own with all its libraries; the node has none."""
    folder = tmp_path / "criu"
    for name in ("bin", "libexec", "lib"):
        (folder / name).mkdir(parents=True)
    own = bare.host.path("/usr/sbin/criu")
    shutil.copyfile(own, folder / "libexec/criu")
    listed = bare.node.run(["ldd", "/usr/sbin/criu"]).stdout
    for word in listed.split():
        if word.startswith("/"):
            real = bare.node.run(["readlink", "-f", word]).stdout.strip()
            shutil.copyfile(bare.host.path(real), folder / "lib" / Path(word).name)
    loader = next((folder / "lib").glob("ld-linux*"))
    for path in (loader, folder / "libexec/criu"):
        path.chmod(0o755)
    (folder / "bin/criu").write_text(
        '#!/bin/sh\nhere=$(dirname "$(dirname "$(readlink -f "$0")")")\n'
        f'exec "$here/lib/{loader.name}" --library-path "$here/lib" "$here/libexec/criu" "$@"\n'
    )
    (folder / "bin/criu").chmod(0o755)
    (folder / "VERSION").write_text("4.2.1\n")
    own.rename(own.with_name("criu.away"))
    yield folder
    own.with_name("criu.away").rename(own)


async def test_criu_is_brought_where_there_is_none(bare: Bare, brought: Path) -> None:
    before = bare.files()
    with pytest.raises(errors.Refused, match="brings none along"):
        await bare.preparer.prepare(lambda _: None)
    bare.criu = brought
    await bare.preparer.prepare(lambda _: None)
    found = await here.take(bare.host, "", None)
    assert found.facts.criu_version.startswith("4.")
    assert found.facts.engines == ("runc", "cri")
    pod = bare.counter()
    done = await commands.run(
        bare.host,
        [
            "runc",
            "--root",
            "/run/containerd/runc/k8s.io",
            "checkpoint",
            "--leave-running",
            "--image-path",
            "/var/tmp/image",
            "--work-path",
            "/var/tmp/image",
            pod.container_id,
        ],
        timeout_s=60,
    )
    shutil.rmtree(bare.host.path("/var/tmp/image"))
    assert done.status == 0, done.stderr_tail
    assert goes_on(pod)
    await bare.preparer.undo(lambda _: None)
    assert bare.files() == before
