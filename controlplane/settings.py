# ruff: noqa: RUF009 - _setting makes a dataclasses.field
"""The settings: frozen, read once from the environment, documented field by field."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

HOUR_S: Final = 3600.0
_LIFE_LIMIT_S: Final = 10 * 366 * 24 * HOUR_S  # of tokens: beyond it times can't be written down
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST_NAME: Final = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_ORIGIN: Final = re.compile(r"https?://([^\s/?#@\[\]:]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_SERVICE: Final = re.compile(r"[a-z0-9-]+/[a-z0-9-]+(:[0-9]{1,5})?")
LEVELS: Final = frozenset({"debug", "info", "warning", "error"})


class SettingError(Exception):
    """A setting can't be used; the message names its variable and never repeats a secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. ``host`` may be an IPv6 address without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _setting(variable: str, default: Any, about: str, *, secret: bool = False) -> Any:
    """A field read from ``variable``; secrets also from ``<variable>_FILE``, and not in repr."""
    about_it = {"variable": variable, "about": about, "secret": secret}
    return field(default=default, metadata=about_it, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set from outside; ``snap-api --help`` prints this list."""

    http_addr: Address = _setting("SNAP_HTTP_ADDR", Address("0.0.0.0", 8000), "REST and WebSocket")  # noqa: S104 - a server
    grpc_addr: Address = _setting("SNAP_GRPC_ADDR", Address("0.0.0.0", 8001), "agents dial here")  # noqa: S104
    hook_addr: Address = _setting("SNAP_HOOK_ADDR", Address("0.0.0.0", 8443), "admission reviews")  # noqa: S104
    hook_host: str = _setting(
        "SNAP_HOOK_HOST",
        "",
        "name or address by which clusters reach SNAP_HOOK_ADDR; unset: the first of SNAP_TLS_SANS, else localhost",
    )
    hook_service: str = _setting(
        "SNAP_HOOK_SERVICE",
        "",
        "<namespace>/<name>[:port] of the service in front of SNAP_HOOK_ADDR, where this server runs in the cluster; "
        "hooks without a webhook_url are registered by it",
    )
    hook_partial: bool = _setting(
        "SNAP_HOOK_PARTIAL",
        False,
        "send pods to prepared nodes even if others could take them too; false: only where every node is prepared",
    )
    hook_cert_life_s: float = _setting(
        "SNAP_HOOK_CERT_LIFE",
        0.0,
        "seconds that certificates for admission last, instead of each hook's cert_expiry_days; 0: those days",
    )
    namespace: str = _setting(
        "SNAP_NAMESPACE",
        "",
        "that this server runs in, whose pods no hook changes; unset: as the service account says, else none",
    )
    data_dir: Path = _setting(
        "SNAP_DATA_DIR", Path("data"), "database, keys, certificates; one process at a time"
    )
    admin_password: str = _setting(
        "SNAP_ADMIN_PASSWORD",
        "",
        "of the user admin, made at the first start; empty: one is made up and printed once",
        secret=True,
    )
    secret_key_file: Path | None = _setting(
        "SNAP_SECRET_KEY_FILE",
        None,
        "32 bytes (raw, hex or base64) that seal stored secrets; unset: made in the data folder",
    )
    log_level: str = _setting("SNAP_LOG_LEVEL", "info", "debug, info, warning or error")
    log_level_file: Path | None = _setting(
        "SNAP_LOG_LEVEL_FILE", None, "a file that holds the level instead; read again on SIGHUP"
    )
    log_format: str = _setting("SNAP_LOG_FORMAT", "text", "text, or json: one object per line")
    rate_limit_user: int = _setting(
        "SNAP_RATE_LIMIT_USER", 1000, "requests per hour of one user; 0: no limit"
    )
    rate_limit_anonymous: int = _setting(
        "SNAP_RATE_LIMIT_ANONYMOUS",
        100,
        "requests per hour of one address without a token; 0: no limit",
    )
    http_tls_cert_file: Path | None = _setting(
        "SNAP_HTTP_TLS_CERT_FILE", None, "REST over TLS with this certificate chain (PEM)"
    )
    http_tls_key_file: Path | None = _setting("SNAP_HTTP_TLS_KEY_FILE", None, "its key (PEM)")
    tls_sans: tuple[str, ...] = _setting(
        "SNAP_TLS_SANS",
        (),
        "names and addresses by which agents dial this server, with commas; localhost is always in",
    )
    tls_cert_file: Path | None = _setting(
        "SNAP_TLS_CERT_FILE", None, "own certificate chain (PEM) for agents; read again on SIGHUP"
    )
    tls_key_file: Path | None = _setting("SNAP_TLS_KEY_FILE", None, "its key (PEM)")
    tls_ca_file: Path | None = _setting(
        "SNAP_TLS_CA_FILE",
        None,
        "what agents should trust when the certificate is your own (PEM); unset: the chain itself",
    )
    cors_origins: tuple[str, ...] = _setting(
        "SNAP_CORS_ORIGINS", (), "origins of web pages that may call with a cookie, with commas"
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "SNAP_TRUSTED_PROXIES",
        (),
        "addresses or networks whose X-Forwarded-For is believed, with commas",
    )
    user_token_ttl_s: float = _setting(
        "SNAP_USER_TOKEN_TTL", 12 * HOUR_S, "seconds that a login lasts"
    )
    join_token_ttl_s: float = _setting(
        "SNAP_AGENT_TOKEN_TTL", 24 * HOUR_S, "seconds in which a join token admits new nodes"
    )
    cluster_name: str = _setting(
        "SNAP_CLUSTER_NAME",
        "",
        "name of the cluster that this runs in as a pod; it is set up by itself, with the pod's own account",
    )
    agent_accounts: tuple[str, ...] = _setting(
        "SNAP_AGENT_ACCOUNTS",
        ("snap/snap-agent",),
        "service accounts (namespace/name) whose projected tokens admit agents, with commas",
    )
    ca_namespace: str = _setting(
        "SNAP_CA_NAMESPACE",
        "snap",
        "namespace, in every cluster, of the ConfigMap snap-ca: whom agents should trust; "
        "a cluster without it is left alone",
    )
    grant_ttl_s: float = _setting(
        "SNAP_GRANT_TTL",
        30 * 24 * HOUR_S,
        "seconds that a permission to restore holds while the control plane is away; "
        "renewed long before at every contact",
    )
    request_wait_s: float = _setting(
        "SNAP_REQUEST_WAIT",
        900.0,
        "seconds that a request waits for its job before it answers 202 with the job's id",
    )
    upload_max_bytes: int = _setting(
        "SNAP_UPLOAD_MAX_BYTES",
        64 << 30,
        "size of one uploaded archive, unpacked from gzip, at most; uploads lie in the data folder",
    )
    upload_free_bytes: int = _setting(
        "SNAP_UPLOAD_FREE_BYTES",
        2 << 30,
        "stays free on the data folder's disk, whatever is uploaded",
    )
    metrics_open: bool = _setting("SNAP_METRICS_OPEN", True, "whether /metrics needs no token")


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that ``environment`` makes.

    Raises:
        SettingError: a value can't be understood, or a secret's file can't be read.
    """
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        text = _text_of(setting, environment)
        if text is not None:
            values[setting.name] = _parsed(setting, text)
    settings = Settings(**values)
    _check(settings)
    return settings


def warnings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What is allowed, but not wise: secrets that whoever sees the process's environment can read."""
    return [
        f"{variable} is in the environment; {variable}_FILE is safer"
        for setting in fields(Settings)
        if setting.metadata["secret"]
        and environment.get(variable := str(setting.metadata["variable"]))
        and not environment.get(variable + "_FILE")
    ]


def describe() -> str:
    """One paragraph per setting, for ``--help``."""
    lines = []
    for setting in fields(Settings):
        default = "" if setting.default in (None, "", ()) else f" [{_shown(setting.default)}]"
        suffix = "[_FILE]" if setting.metadata["secret"] else ""
        lines.append(f"  {setting.metadata['variable']}{suffix}{default}")
        lines.append(f"      {setting.metadata['about']}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A default as it would be written in the environment."""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _text_of(setting: Field[Any], environment: Mapping[str, str]) -> str | None:
    variable = str(setting.metadata["variable"])
    if setting.metadata["secret"] and (name := environment.get(variable + "_FILE")):
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as cause:
            raise SettingError(
                f"{variable}_FILE: {name} can't be read ({cause.strerror})"
            ) from cause
        except UnicodeDecodeError as cause:
            raise SettingError(f"{variable}_FILE: {name} is no text (UTF-8)") from cause
    text = environment.get(variable)
    return None if text is None or not text.strip() else text.strip()


def _parsed(setting: Field[Any], text: str) -> Any:
    variable, default = setting.metadata["variable"], setting.default
    assert default is not MISSING  # noqa: S101 - every setting has one
    try:
        return _value(str(setting.type), text)
    except ValueError as cause:
        raise SettingError(f"{variable}: {text!r} is not understood: {cause}") from cause


def _value(kind: str, text: str) -> Any:
    if kind == "Address":
        return _address(text)
    if kind.startswith("Path"):
        return Path(text)
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "bool":
        if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
            raise ValueError("true or false is expected")
        return text.lower() in {"true", "1", "yes"}
    if kind in {"int", "float"}:
        number = int(text) if kind == "int" else float(text)
        if not math.isfinite(number):
            raise ValueError("a number is expected")
        if number < 0:
            raise ValueError("it can't be negative")
        return number
    return text


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("host:port is expected")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - as in ":8000"


def _check(settings: Settings) -> None:
    pairs = (
        ("SNAP_TLS", settings.tls_cert_file, settings.tls_key_file),
        ("SNAP_HTTP_TLS", settings.http_tls_cert_file, settings.http_tls_key_file),
    )
    for name, certificate, key in pairs:
        if (certificate is None) != (key is None):
            raise SettingError(f"{name}_CERT_FILE and {name}_KEY_FILE must be set together")
    for variable, lifetime_s in (
        ("SNAP_USER_TOKEN_TTL", settings.user_token_ttl_s),
        ("SNAP_AGENT_TOKEN_TTL", settings.join_token_ttl_s),
        ("SNAP_GRANT_TTL", settings.grant_ttl_s),
    ):
        if not 1 <= lifetime_s <= _LIFE_LIMIT_S:
            raise SettingError(f"{variable}: {lifetime_s:g} is not 1 to {_LIFE_LIMIT_S:g} seconds")
    _check_names(settings)
    if settings.cluster_name and not _NAME.fullmatch(settings.cluster_name):
        raise SettingError(
            f"SNAP_CLUSTER_NAME: {settings.cluster_name!r} is not 1-63 of a-z A-Z 0-9 . _ -, "
            "starting with a letter or digit"
        )
    for account in settings.agent_accounts:
        if not all(account.partition("/")) or account.count("/") > 1:
            raise SettingError(f"SNAP_AGENT_ACCOUNTS: {account!r} is not namespace/name")
    if settings.hook_service and not _SERVICE.fullmatch(settings.hook_service):
        raise SettingError(
            f"SNAP_HOOK_SERVICE: {settings.hook_service!r} is not <namespace>/<name>[:port]"
        )
    if settings.log_level.lower() not in LEVELS:
        raise SettingError(f"SNAP_LOG_LEVEL: {settings.log_level!r} is not a level")
    if settings.log_format not in {"text", "json"}:
        raise SettingError(f"SNAP_LOG_FORMAT: {settings.log_format!r} is neither text nor json")


def _check_names(settings: Settings) -> None:
    for proxy in settings.trusted_proxies:
        _check_network(proxy)
    for name in settings.tls_sans:
        _check_host(name)
    for origin in settings.cors_origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingError(
                f"SNAP_CORS_ORIGINS: {origin!r} is no origin: https://host[:port] is expected"
            )


def _check_network(proxy: str) -> None:
    try:
        ipaddress.ip_network(proxy, strict=False)
    except ValueError as cause:
        raise SettingError(
            f"SNAP_TRUSTED_PROXIES: {proxy!r} is neither an address nor a network"
        ) from cause


def _check_host(name: str) -> None:
    try:
        ipaddress.ip_address(name)
    except ValueError as cause:
        if not _HOST_NAME.fullmatch(name.removeprefix("*.")):
            raise SettingError(
                f"SNAP_TLS_SANS: {name!r} is neither a host name nor an address"
            ) from cause
