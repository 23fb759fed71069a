"""What an operator can set: frozen, read once from the environment, each field documented where it stands.

Secrets come by file first (``SNAP_AGENT_TOKEN_FILE``); a plain variable is allowed and warned
about, because every child process and every core dump of the agent would carry it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
import socket
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

GIB: Final = 1 << 30
_ANY_SIZE: Final = 1 << 60
_ANY_HOURS: Final = 100 * 366 * 24
# Source: Kubernetes mounts a pod's service account here
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class SettingsError(ValueError):
    """A setting is missing or wrong; the message is one sentence that names its variable."""


def _text(name: str, value: str) -> str:  # noqa: ARG001 - the readers share one signature
    return value


def _path(name: str, value: str) -> Path:
    if not value.startswith("/"):
        raise SettingsError(f"{name} must be an absolute path, not {value!r}.")
    return Path(value)


def _address(name: str, value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536) or "/" in value:
        raise SettingsError(
            f"{name} must be host:port (such as snap.example.org:8001), not {value!r}."
        )
    return value


def _https(name: str, value: str) -> str:
    if bare := re.fullmatch(r"https://([0-9a-fA-F:.]+):(\d{1,5})/?", value):
        # as Kubernetes writes https://$(SNAP_NODE_IP):10250 on a node with an IPv6 address
        with contextlib.suppress(ValueError):
            value = f"https://[{ipaddress.IPv6Address(bare[1])}]:{bare[2]}"
    found = re.fullmatch(r"https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:(\d{1,5}))?/?", value)
    if not found or not 0 < int(found[3] or 443) < 65536:
        raise SettingsError(
            f"{name} must be https://host:port (such as https://127.0.0.1:10250), not {value!r}."
        )
    return value.rstrip("/")


def _socket(name: str, value: str) -> str:
    if not value.removeprefix("unix://").startswith("/"):
        raise SettingsError(
            f"{name} must be unix:///path (such as unix:///run/containerd/containerd.sock), not {value!r}."
        )
    return value


def _label(name: str, value: str) -> str:
    if not 0 < len(value) <= 253 or any(c.isspace() or not c.isprintable() for c in value):
        raise SettingsError(f"{name} must be 1-253 printable characters without spaces.")
    return value


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value.lower() not in choices:
            raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        return value.lower()

    return read


def _count(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not value.isdigit() or not low <= int(value) <= high:
            raise SettingsError(
                f"{name} must be a whole number from {low} to {high}, not {value!r}."
            )
        return int(value)

    return read


def _scratch(name: str, value: str) -> int:
    """Bytes of memory at most; 0: the disk."""
    words = {"disk": 0, "auto": _ANY_SIZE}
    if value.lower() not in words and not value.isdigit():
        raise SettingsError(f"{name} must be disk, auto or a number of bytes, not {value!r}.")
    return words[value.lower()] if value.lower() in words else int(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a field comes from, what it is for (unit and reason), and how its text is read.

    ``shown`` is the default as one would write it, where that is not the value itself.
    """

    env: str
    why: str
    read: Callable[[str, str], Any]
    shown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The agent's settings. Made by ``from_environment``; defaults are for a node without Kubernetes."""

    control_plane: Annotated[
        str,
        Setting(
            "SNAP_CONTROL_PLANE",
            "Where the control plane's gRPC listens, host:port. Needed to run; probe works without.",
            _address,
        ),
    ] = ""
    cluster: Annotated[
        str,
        Setting(
            "SNAP_CLUSTER_NAME",
            "The cluster this node belongs to, by the name that the control plane knows. Needed to run.",
            _label,
        ),
    ] = ""
    node: Annotated[
        str,
        Setting(
            "SNAP_NODE_NAME",
            "This node's name, as Kubernetes has it (spec.nodeName). Default: the host name.",
            _label,
        ),
    ] = field(default_factory=socket.gethostname)
    pod_uid: Annotated[
        str,
        Setting(
            "SNAP_POD_UID",
            "Id of the pod that the agent runs in (metadata.uid), so that a node whose preparation was "
            "undone is prepared again by a new pod only. Default: not in a pod.",
            _text,
        ),
    ] = ""
    token_file: Annotated[
        Path | None,
        Setting(
            "SNAP_AGENT_TOKEN_FILE",
            "File with the join token or a projected service-account token; read anew at each join, "
            "because the kubelet renews projected tokens in place.",
            _path,
        ),
    ] = None
    token: Annotated[
        str,
        Setting(
            "SNAP_AGENT_TOKEN",
            "The join token itself. Only where no file can be had: children inherit the environment.",
            _text,
        ),
    ] = field(default="", repr=False)
    ca_file: Annotated[
        Path | None,
        Setting(
            "SNAP_CA_FILE",
            "PEM file with the CA that signed the control plane's certificate. Default: the system's CAs.",
            _path,
        ),
    ] = None
    host_root: Annotated[
        Path,
        Setting(
            "SNAP_HOST_ROOT",
            "Where the node's file system is seen from here: / on the node itself, /host in a pod.",
            _path,
        ),
    ] = Path("/")
    cri_endpoint: Annotated[
        str,
        Setting(
            "SNAP_CRI_ENDPOINT",
            "The container runtime's CRI socket, unix:///path on the node. Default: the first that is "
            "there of containerd's, CRI-O's.",
            _socket,
        ),
    ] = ""
    kubelet_url: Annotated[
        str,
        Setting(
            "SNAP_KUBELET_URL",
            "The local kubelet's address, for the engine kubelet; an IPv6 address needs no brackets if a port follows.",
            _https,
        ),
    ] = "https://127.0.0.1:10250"
    kubelet_token_file: Annotated[
        Path,
        Setting(
            "SNAP_KUBELET_TOKEN_FILE",
            "File with the token of a service account that may create nodes/checkpoint; read anew at "
            "each call, because the kubelet renews it in place.",
            _path,
        ),
    ] = SERVICE_ACCOUNT / "token"
    kubelet_ca_file: Annotated[
        Path | None,
        Setting(
            "SNAP_KUBELET_CA_FILE",
            "PEM file with the CA that signed the kubelet's serving certificate. Default: the cluster's "
            f"({SERVICE_ACCOUNT}/ca.crt), and what the kubelet of this node signed itself "
            "(/var/lib/kubelet/pki/kubelet.crt).",
            _path,
        ),
    ] = None
    kubelet_verify: Annotated[
        str,
        Setting(
            "SNAP_KUBELET_VERIFY",
            "no: do not look at the kubelet's certificate. Whoever answers then gets the agent's token.",
            _one_of("yes", "no"),
        ),
    ] = "yes"
    data_dir: Annotated[
        Path,
        Setting(
            "SNAP_AGENT_DATA_DIR",
            "Checkpoints, job journal, image cache and identity; the same path on the node and in the pod.",
            _path,
        ),
    ] = Path("/var/lib/snap")
    prepare: Annotated[
        str,
        Setting(
            "SNAP_PREPARE",
            "report: only say what the node lacks. auto: also install what restores need when the agent "
            "starts (wrapper, CRIU, the runtime's handler snap), which may start the runtime anew once.",
            _one_of("report", "auto"),
        ),
    ] = "report"
    runtime_restart: Annotated[
        str,
        Setting(
            "SNAP_RUNTIME_RESTART",
            "The command that starts the container runtime anew after its configuration was changed. "
            "Default: systemd's, of the unit that the runtime is in.",
            _text,
        ),
    ] = ""
    checkpoint_scratch_bytes: Annotated[
        int,
        Setting(
            "SNAP_CHECKPOINT_SCRATCH",
            "disk: memory images are written to the data folder. auto, or a number of bytes: to a tmpfs first "
            "(at most so much of the node's memory, never more than a quarter, and only while a quarter stays "
            "available), and from there to the disk once the container runs again. Faster where the disk is "
            "what a dump waits for.",
            _scratch,
            shown="disk",
        ),
    ] = 0
    max_dumps: Annotated[
        int,
        Setting(
            "SNAP_MAX_DUMPS",
            "Checkpoints taken at once on this node. Few, because each one writes at the disk's speed "
            "while a container is still.",
            _count(1, 64),
        ),
    ] = 2
    max_transfers: Annotated[
        int,
        Setting(
            "SNAP_MAX_TRANSFERS",
            "Pushes and fetches at once. Few, because each one may use every core to compress.",
            _count(1, 64),
        ),
    ] = 2
    keep_pushed_hours: Annotated[
        int,
        Setting(
            "SNAP_KEEP_PUSHED_HOURS",
            "Hours that a checkpoint's parts stay here after a push, for restores on this node. Pinned ones "
            "and bases of deltas stay longer.",
            _count(0, _ANY_HOURS),
        ),
    ] = 24
    keep_unpushed_hours: Annotated[
        int,
        Setting(
            "SNAP_KEEP_UNPUSHED_HOURS",
            "Hours that a checkpoint stays that was never pushed; then it is gone for good.",
            _count(0, _ANY_HOURS),
        ),
    ] = 7 * 24
    keep_last: Annotated[
        int,
        Setting(
            "SNAP_KEEP_LAST",
            "Of each workload, so many unpushed checkpoints never go for their age.",
            _count(0, 1000),
        ),
    ] = 3
    disk_share_percent: Annotated[
        int,
        Setting(
            "SNAP_DISK_SHARE_PERCENT",
            "Of the disk under the data folder, at most this much holds checkpoints; pushed ones go "
            "first, then the oldest.",
            _count(1, 100),
        ),
    ] = 20
    disk_free_percent: Annotated[
        int,
        Setting(
            "SNAP_DISK_FREE_PERCENT",
            "Of the disk under the data folder, this much stays free: a dump that would leave less is "
            "refused, because a node that runs full evicts its pods.",
            _count(0, 99),
        ),
    ] = 10
    cache_max_bytes: Annotated[
        int,
        Setting(
            "SNAP_CACHE_MAX_BYTES",
            "Bytes of fetched images kept for restores; the least recently used goes first.",
            _count(0, 1 << 50),
        ),
    ] = 20 * GIB
    log_level: Annotated[
        str,
        Setting(
            "SNAP_LOG_LEVEL",
            "debug, info, warning or error.",
            _one_of("debug", "info", "warning", "error"),
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Setting(
            "SNAP_LOG_FORMAT",
            "text: one line per event for people. json: one JSON object per event for collectors.",
            _one_of("text", "json"),
        ),
    ] = "text"

    def warnings(self) -> tuple[str, ...]:
        """What is allowed but should be done differently, one sentence each."""
        said = []
        if self.token and not self.token_file:
            said.append("SNAP_AGENT_TOKEN is in the environment; SNAP_AGENT_TOKEN_FILE is safer.")
        if self.kubelet_verify == "no":
            said.append("SNAP_KUBELET_VERIFY=no: the agent's token goes to whoever answers there.")
        return tuple(said)

    def check_to_run(self) -> None:
        """Whether there is enough to join a control plane.

        Raises:
            SettingsError: something needed is missing.
        """
        if not self.control_plane:
            raise SettingsError(
                "SNAP_CONTROL_PLANE is not set: say where the control plane is (host:port)."
            )
        if not self.cluster:
            raise SettingsError(
                "SNAP_CLUSTER_NAME is not set: say which cluster this node belongs to."
            )
        if not self.token and not self.token_file:
            raise SettingsError("SNAP_AGENT_TOKEN_FILE is not set: the agent needs a join token.")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that ``environment`` spells; an empty variable means its default.

    Raises:
        SettingsError: one is wrong.
    """
    given = {
        name: setting.read(setting.env, text)
        for name, setting in all_settings().items()
        if (text := environment.get(setting.env, "").strip())
    }
    return Settings(**given)


def all_settings() -> dict[str, Setting]:
    """Every setting by the name of its field."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def describe() -> str:
    """Every setting with its variable, default and reason, for ``--help``."""
    defaults = {one.name: one.default for one in dataclasses.fields(Settings)}
    lines = ["settings (environment):"]
    for name, setting in all_settings().items():
        default = setting.shown or defaults[name]
        known = default not in {"", None, dataclasses.MISSING}
        lines.append(f"  {setting.env}{f' [{default}]' if known else ''}")
        lines += textwrap.wrap(setting.why, 96, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
