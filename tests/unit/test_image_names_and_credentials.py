"""References by digest, and which credentials go with a name."""

from __future__ import annotations

import pytest

from agent.errors import Refused
from agent.formats.jobs import RegistryAccess
from agent.image.reference import ImageReference, Keychain, check_repository, check_tag

DIGEST = "sha256:" + "ab" * 32


def test_reference_is_taken_apart() -> None:
    reference = ImageReference.parse(f"reg.example.org:5000/team/app@{DIGEST}")
    assert (reference.host, reference.repository) == ("reg.example.org:5000", "team/app")
    assert str(reference) == f"reg.example.org:5000/team/app@{DIGEST}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "reg/app:tag",
        f"app@{DIGEST}",
        f"reg/../x@{DIGEST}",
        f"reg/App@{DIGEST}",
        f"reg/app@{DIGEST}0",
        f"user@reg/app@{DIGEST}",
        f"reg/a/@{DIGEST}",
    ],
)
def test_anything_but_a_name_by_digest_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        ImageReference.parse(text)


@pytest.mark.parametrize("name", ["", "/a", "a//b", "A", "a b", "a" * 300, "a?x=1"])
def test_repository_names_are_checked(name: str) -> None:
    with pytest.raises(Refused):
        check_repository(name)


@pytest.mark.parametrize("tag", ["", ".a", "a/b", "a" * 129, "a b"])
def test_tags_are_checked(tag: str) -> None:
    with pytest.raises(Refused):
        check_tag(tag)


@pytest.mark.parametrize(
    ("host", "repository", "user"),
    [
        ("reg", "team/app", "team"),
        ("reg", "team", "team"),
        ("reg", "teams/app", "all"),
        ("reg", "team/secret/app", "secret"),
        ("other", "team/app", None),
        ("reg:5000", "team/app", None),
    ],
)
def test_longest_prefix_of_the_host_wins(host: str, repository: str, user: str | None) -> None:
    keychain = Keychain(
        [
            RegistryAccess("reg", "all"),
            RegistryAccess("reg", "team", repository_prefix="team"),
            RegistryAccess("reg", "secret", repository_prefix="team/secret/"),
        ]
    )
    found = keychain.access(host, repository)
    assert (found.username if found else None) == user
