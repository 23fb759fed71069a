"""Settings from the environment: types, files, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from controlplane import __main__, settings
from controlplane.settings import Address, SettingError


def test_defaults_are_those_of_the_reference() -> None:
    found = settings.read({})
    assert str(found.http_addr) == "0.0.0.0:8000"
    assert (found.grpc_addr.port, found.hook_addr.port) == (8001, 8443)
    assert (found.rate_limit_user, found.rate_limit_anonymous) == (1000, 100)
    assert found.join_token_ttl_s == 86_400


def test_values_are_understood(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from-a-file\n")
    found = settings.read(
        {
            "SNAP_HTTP_ADDR": "[::1]:80",
            "SNAP_GRPC_ADDR": ":9000",
            "SNAP_TLS_SANS": "a.test, 10.0.0.1, fd00::1, *.b.test",
            "SNAP_CORS_ORIGINS": "https://a.test:8443/, http://[::1]:3000, http://localhost",
            "SNAP_ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
            "SNAP_METRICS_OPEN": "no",
            "SNAP_DATA_DIR": "/var/lib/snap-api",
        }
    )
    assert (found.http_addr, str(found.http_addr)) == (Address("::1", 80), "[::1]:80")
    assert found.grpc_addr == Address("0.0.0.0", 9000)  # noqa: S104 - parsed, not listened on
    assert found.tls_sans == ("a.test", "10.0.0.1", "fd00::1", "*.b.test")
    assert found.cors_origins[1:] == ("http://[::1]:3000", "http://localhost")
    assert (found.admin_password, found.metrics_open) == ("from-a-file", False)
    assert "from-a-file" not in repr(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"SNAP_HTTP_ADDR": "nonsense"},
        {"SNAP_HTTP_ADDR": "host:99999"},
        {"SNAP_RATE_LIMIT_USER": "-1"},
        {"SNAP_RATE_LIMIT_USER": "many"},
        {"SNAP_TLS_CERT_FILE": "/only/one"},
        {"SNAP_LOG_LEVEL": "loud"},
        {"SNAP_LOG_FORMAT": "xml"},
        {"SNAP_METRICS_OPEN": "perhaps"},
        {"SNAP_ADMIN_PASSWORD_FILE": "/no/such/file"},
        {"SNAP_ADMIN_PASSWORD_FILE": sys.executable},
        {"SNAP_TRUSTED_PROXIES": "10.0.0.0/8, proxy"},
        {"SNAP_TLS_SANS": "snap.test, https://snap.test"},
        {"SNAP_TLS_SANS": "snap.test:8001"},
        {"SNAP_CORS_ORIGINS": "snap.test"},
        {"SNAP_CORS_ORIGINS": "https://snap.test, *"},
        {"SNAP_CORS_ORIGINS": "https://snap.test/a/page"},
        {"SNAP_USER_TOKEN_TTL": "nan"},
        {"SNAP_USER_TOKEN_TTL": "0"},
        {"SNAP_AGENT_TOKEN_TTL": "inf"},
        {"SNAP_GRANT_TTL": "1e18"},
        {"SNAP_CLUSTER_NAME": "a cluster"},
    ],
    ids=str,
)
def test_what_is_wrong_is_said_by_name(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        settings.read(wrong)
    assert next(iter(wrong)).split("_CERT")[0] in str(caught.value)


def test_help_names_every_setting() -> None:
    text = settings.describe()
    assert all(name in text for name in ("SNAP_HTTP_ADDR", "SNAP_ADMIN_PASSWORD[_FILE]", "8001"))


def test_help_shows_defaults_as_they_would_be_set() -> None:
    shown = dict(re.findall(r"^  (\w+) \[(.+)\]$", settings.describe(), re.MULTILINE))
    assert shown["SNAP_AGENT_ACCOUNTS"] == "snap/snap-agent"
    assert settings.read(shown) == settings.Settings()


def test_a_wrong_setting_is_one_sentence_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNAP_LOG_LEVEL", "loud")
    assert __main__.main([]) == 2
    assert capsys.readouterr().err == "snap-api: SNAP_LOG_LEVEL: 'loud' is not a level\n"


def test_a_secret_in_the_environment_is_warned_of() -> None:
    (warning,) = settings.warnings({"SNAP_ADMIN_PASSWORD": "a-secret"})
    assert "SNAP_ADMIN_PASSWORD_FILE" in warning
    assert "a-secret" not in warning
    assert not settings.warnings({"SNAP_ADMIN_PASSWORD_FILE": "/etc/snap/admin"})
