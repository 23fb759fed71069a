"""The pods of the failures' tests: the originals on node 1, and what their checkpoints are restored into on node 2."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.formats import layout
from tests.e2e.failures import programs

NAMESPACE: Final = "failures"
ELSEWHERE: Final = "elsewhere"
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Original:
    """A pod that is checkpointed.

    Attributes:
        volumes: name → source; mounted at ``/<name>``.
        container, spec, annotations: what else its container, spec and metadata say.
        twin: there is a second container ``twin`` of the same program.
        is_ready: whether it runs for good; else it is only made.
    """

    name: str
    program: str = ""
    image: str = "python"
    volumes: Mapping[str, Manifest] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    twin: bool = False
    is_ready: bool = True

    def manifest(self, registry: str) -> Manifest:
        """The pod, with its image from ``registry``."""
        container: Manifest = {
            "name": "app",
            "image": f"{registry}/{self.image}:latest",
            "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in self.volumes],
        }
        if self.program:
            container["command"] = ["/usr/bin/python3", "-S", "-E", "-c", self.program]
        container |= copy.deepcopy(dict(self.container))
        twin = [{**copy.deepcopy(container), "name": "twin"}] if self.twin else []
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "annotations": dict(self.annotations),
            },
            "spec": {
                "nodeName": "node1",
                "terminationGracePeriodSeconds": 0,
                "containers": [container, *twin],
                "volumes": [{"name": name, **source} for name, source in self.volumes.items()],
                **copy.deepcopy(dict(self.spec)),
            },
        }


Change = Callable[[Manifest], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """A pod that asks for the checkpoint of ``of``, made like it but for ``changes``."""

    name: str
    of: str
    changes: tuple[Change, ...] = ()
    asks: Mapping[str, str] = field(default_factory=dict)

    def manifest(self, original: Manifest, images: Mapping[str, str]) -> Manifest:
        """The pod, with the checkpoint images by container."""
        made = copy.deepcopy(original)
        asked = {layout.ANNOTATION_CHECKPOINT: json.dumps(dict(images)), **self.asks}
        made["metadata"]["name"] = self.name
        made["metadata"]["annotations"] |= asked
        made["spec"] |= {"nodeName": "node2", "runtimeClassName": "snap"}
        for change in self.changes:
            change(made)
        return made


def container(**fields: Any) -> Change:
    """The container says this too."""
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def another_image(name: str) -> Change:
    """Its image is another of the same registry."""

    def change(pod: Manifest) -> None:
        one = pod["spec"]["containers"][0]
        one["image"] = f"{one['image'].rpartition('/')[0]}/{name}:latest"

    return change


def host_path(path: str) -> Change:
    """Its hostPath is another."""

    def change(pod: Manifest) -> None:
        (volume,) = [one for one in pod["spec"]["volumes"] if "hostPath" in one]
        volume["hostPath"] = {"path": path, "type": "DirectoryOrCreate"}

    return change


def in_namespace(name: str) -> Change:
    """It is a pod of another namespace."""
    return lambda pod: pod["metadata"].update(namespace=name)


def mounts(*listed: Manifest) -> Change:
    """The container mounts these, all of the volume ``data``."""
    return container(volumeMounts=[{"name": "data", **one} for one in listed])


EMPTY: Final[Manifest] = {"emptyDir": {}}
DATA: Final = {"mountPath": "/data"}
MIB_200: Final = {"HOG_MIB": "200", "HOG_HZ": "5"}
STRICT: Final = {
    "runAsUser": 1000,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
PROBE: Final = {
    "exec": {"command": ["true"]},
    "periodSeconds": 1,
    "timeoutSeconds": 1,
    "failureThreshold": 1,
}


COUNTING: Final = {"command": ["/bin/sh", "-c", programs.COUNTING]}


def _env(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


ORIGINALS: Final = (
    Original("base", image="counter", volumes={"data": EMPTY}, container=COUNTING),
    Original("network", programs.NETWORK),
    Original(
        "files",
        programs.FILES,
        volumes={
            "vol": EMPTY,
            "conf": {"configMap": {"name": "color"}},
            "host": {"hostPath": {"path": "/srv/failures"}},
        },
    ),
    Original("memory", programs.MEMORY, volumes={"vol": EMPTY}),
    Original(
        "confined",
        programs.THREADS,
        container={"securityContext": {**STRICT, "readOnlyRootFilesystem": True}},
    ),
    Original("privileged", programs.PLAIN, container={"securityContext": {"privileged": True}}),
    Original("forking", programs.FORKING),
    Original("hostnet", programs.PLAIN, spec={"hostNetwork": True}),
    Original(
        "together",
        programs.PLAIN,
        volumes={"vol": EMPTY},
        spec={"shareProcessNamespace": True},
        twin=True,
    ),
    Original("terminal", image="counter", container={"tty": True, "stdin": True}),
    Original("ending", programs.ENDING, spec={"restartPolicy": "Never"}),
    Original("bound", programs.BOUND),
    Original("large", image="hog", container={"env": _env(MIB_200), "livenessProbe": PROBE}),
    Original("ring", programs.RING),
    Original("stopped", programs.STOPPED),
    Original("traced", programs.TRACED),
    Original("sandbox", programs.SANDBOX, container={"securityContext": {"privileged": True}}),
    Original("queue", programs.QUEUE),
    Original("segments", programs.SEGMENT, twin=True),
    Original("hostpid", programs.PLAIN, spec={"hostPID": True}),
    Original("users", programs.PLAIN, spec={"hostUsers": False}),
    Original("configured", programs.PLAIN, annotations={"org.criu.config": "/tmp/evil"}),
    Original("over", image="counter", container={"command": ["true"]}, is_ready=False),
)
LAZY: Final = {layout.ANNOTATION_RESTORE_MODE: "lazy"}
RESTORED: Final = (
    *(Restored(f"clone{number}", "base") for number in (1, 2, 3, 4)),
    Restored("stricter", "base", (container(securityContext=STRICT),)),
    Restored("environment", "base", (container(env=_env({"MODE": "new"})),)),
    Restored("command", "base", (container(command=["/bin/sh", "-c", programs.COUNTING + "# x"]),)),
    Restored("image", "base", (another_image("hog"),)),
    Restored("less", "base", (container(volumeMounts=[]),)),
    Restored("more", "base", (mounts(DATA, {"mountPath": "/more"}),)),
    Restored("readonly", "base", (mounts({**DATA, "readOnly": True}),)),
    Restored("stranger", "base", (in_namespace(ELSEWHERE),)),
    *(
        Restored(f"{name}-back", name)
        for name in (
            "network",
            "files",
            "memory",
            "confined",
            "privileged",
            "forking",
            "hostnet",
            "together",
            "terminal",
            "ending",
            "bound",
        )
    ),
    Restored("files-lost", "files", (host_path("/srv/nothing"),)),
    Restored("parted", "together", (lambda pod: pod["spec"].update(shareProcessNamespace=False),)),
    Restored("small", "large", (container(resources={"limits": {"memory": "64Mi"}}),)),
    Restored("slow", "large", (container(resources={"limits": {"cpu": "100m"}}),)),
)


def containers(pod: str) -> tuple[str, ...]:
    """The names of the containers of one of these pods."""
    of = next((one.of for one in RESTORED if one.name == pod), pod)
    original = next(one for one in ORIGINALS if one.name == of)
    return ("app", "twin") if original.twin else ("app",)
