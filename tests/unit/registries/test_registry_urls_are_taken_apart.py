"""Registry urls, as both dialects write them."""

from __future__ import annotations

import pytest

from controlplane.errors import Refused
from controlplane.registries import address
from controlplane.registries.address import RegistryAddress
from controlplane.registries.client import Challenge, parse_challenge

FINE = {
    "https://nexus.company.com": RegistryAddress("nexus.company.com", "", plain_http=False),
    "https://Nexus.Company.com/": RegistryAddress("nexus.company.com", "", plain_http=False),
    "nexus:5000/team/snap": RegistryAddress("nexus:5000", "team/snap", plain_http=False),
    "http://10.0.0.1:5000": RegistryAddress("10.0.0.1:5000", "", plain_http=True),
    "localhost": RegistryAddress("localhost", "", plain_http=False),
    "https://[::1]:5000/x": RegistryAddress("[::1]:5000", "x", plain_http=False),
    "https://registry.io/v2/": RegistryAddress("registry.io", "", plain_http=False),
}


@pytest.mark.parametrize("url", FINE)
def test_a_url_has_these_parts(url: str) -> None:
    assert address.parse(url) == FINE[url]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "https://",
        "https://user:secret@host",
        "https://host:99999",
        "https://host/UPPER",
        "https://host/../x",
        "host name",
        "https://host?x=1",
        "-x",
        "https://host/a//b",
    ],
)
def test_these_are_no_registries(url: str) -> None:
    with pytest.raises(Refused) as refused:
        address.parse(url)
    assert "secret" not in refused.value.message


def test_challenges_are_read() -> None:
    asked = 'Bearer realm="https://auth.x/token",service="reg",scope="a,b"'
    assert parse_challenge(asked) == Challenge("bearer", "https://auth.x/token", "reg")
    assert parse_challenge('Basic realm="R"').scheme == "basic"
    assert parse_challenge("").scheme == ""
