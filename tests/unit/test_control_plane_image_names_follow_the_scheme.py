"""Where images go: the scheme, and what a request may say instead."""

from __future__ import annotations

import re
from typing import Any

import pytest

from controlplane.checkpoints import naming
from controlplane.checkpoints.naming import Place, Source

DIGEST = "0123456789ab" + "c" * 52
REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}")


def source(**changes: Any) -> Source:
    fields: dict[str, Any] = {
        "cluster": "production",
        "namespace": "default",
        "pod_name": "web-5d9c-x2x4z",
        "container_name": "main",
        "image_id": f"docker.io/library/redis@sha256:{DIGEST}",
        "labels": {"app": "web", "pod-template-hash": "5d9c"},
    }
    return Source(**fields | changes)


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        (source(), "production-default-web:0123456789ab-5d9c"),
        (source(is_one_of_several=True), "production-default-web:0123456789ab-5d9c-main"),
        (source(labels={"app": "web"}), "production-default-web:0123456789ab-no-hash"),
        (source(labels={}), "production-default-web-5d9c-x2x4z:0123456789ab-no-hash"),
        (source(labels={}, owner_name="web"), "production-default-web:0123456789ab-no-hash"),
        (
            source(labels={"app": "b", "app.kubernetes.io/name": "a"}),
            "production-default-a:0123456789ab-no-hash",
        ),
        (source(labels={"k8s-app": "dns"}), "production-default-dns:0123456789ab-no-hash"),
        (source(image_id=DIGEST), "production-default-web:0123456789ab-5d9c"),
        (source(image_id=""), "production-default-web:no-digest-5d9c"),
        (source(cluster="Prod_EU"), "prod_eu-default-web:0123456789ab-5d9c"),
    ],
    ids=str,
)
def test_the_scheme(of: Source, wanted: str) -> None:
    place = naming.place(of, "team/snap_images")
    assert f"{place.repository}:{place.tag}" == f"team/snap_images/{wanted}"


def test_a_request_may_name_image_and_tag() -> None:
    assert naming.place(source(), "r", "mine", "latest") == Place("r/mine", "latest")
    assert naming.place(source(), "", "mine", "V1").repository == "mine"
    assert naming.place(source(), "r", tag="v2").tag == "v2"


@pytest.mark.parametrize(
    "odd", ["..", "a//b", "-a-", "A B", "ä", "a..b", "_", "x" * 400, "a_-_b", "a/../b"], ids=repr
)
def test_whatever_comes_in_a_name_comes_out(odd: str) -> None:
    place = naming.place(source(cluster=odd, container_name=odd, is_one_of_several=True), "r")
    assert REPOSITORY.fullmatch(place.repository)
    assert len(place.repository) <= 255
    assert TAG.fullmatch(place.tag)


def test_a_download_is_named_after_pod_and_id() -> None:
    assert naming.filename("app", "01ARZ") == "app-01ARZ.tar"
