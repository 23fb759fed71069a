"""Where clusters reach a hook, and what they are told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.hook import addresses, webhook
from controlplane.hook.addresses import Reaching
from controlplane.hook.webhook import Registration, Service
from controlplane.settings import SettingError, read
from controlplane.store.hooks import HookRow

HERE = Reaching(key=b"k" * 32, host="snap.test", port=8443, names=frozenset({"localhost"}))


def hook(url: str = "", name: str = "h", **values: Any) -> HookRow:
    return HookRow(name, "c1", webhook_url=url, **values)


def test_a_path_is_the_same_for_ever_and_another_for_each_hook_and_key() -> None:
    path = HERE.path(hook())
    assert path.startswith("/hook/h/")
    assert len(path) > 36
    assert path == HERE.path(hook())
    assert path != HERE.path(hook(name="i"))
    assert path != replace(HERE, key=b"l" * 32).path(hook())


@pytest.mark.parametrize(
    ("given", "url", "path"),
    [
        ("https://a.test/webhook", "https://a.test/webhook", "/webhook"),
        ("https://a.test:9/x/y", "https://a.test:9/x/y", "/x/y"),
        ("https://a.test", "https://a.test{}", "{}"),
        ("https://a.test/", "https://a.test{}", "{}"),
        ("", "https://snap.test:8443{}", "{}"),
    ],
)
def test_a_url_of_its_own_counts(given: str, url: str, path: str) -> None:
    ours = HERE.path(hook())
    assert HERE.url(hook(given)) == url.format(ours)
    assert HERE.path(hook(given)) == path.format(ours)


@pytest.mark.parametrize("stored", ["https://\x98\x82", "https://a.test:99999/x"])
def test_what_was_stored_and_is_no_url_breaks_nothing(stored: str) -> None:
    assert HERE.url(hook(stored)).startswith(stored)
    assert HERE.names_of(hook(stored)) == {"localhost"}


def test_an_ipv6_host_is_bracketed() -> None:
    assert replace(HERE, host="::1").url(hook()).startswith("https://[::1]:8443/")


def test_certificates_are_good_for_every_way_there() -> None:
    here = replace(HERE, service=Service("snap-system", "snap-api", 8443))
    assert here.names_of(hook("https://a.test/x")) == {
        "localhost",
        "a.test",
        "snap-api.snap-system.svc",
    }
    assert here.life_of(hook(cert_expiry_days=3)) == timedelta(days=3)


def test_only_the_cluster_that_this_server_runs_in_reaches_it_by_its_service() -> None:
    here = replace(HERE, service=Service("snap-system", "snap-api", 8443), own_cluster="c1")
    assert here.service_of(hook()) == here.service
    assert here.service_of(hook("https://a.test/x")) is None
    assert here.service_of(replace(hook(), cluster="c2")) is None


def test_settings_say_how_this_server_is_reached() -> None:
    given = {
        "SNAP_HOOK_ADDR": "0.0.0.0:9443",
        "SNAP_HOOK_SERVICE": "snap-system/snap-api",
        "SNAP_TLS_SANS": "snap.test,10.0.0.1",
        "SNAP_NAMESPACE": "snap-system",
        "SNAP_HOOK_CERT_LIFE": "60",
    }
    found = addresses.read(read(given), b"k", {})
    assert (found.host, found.port) == ("snap.test", 9443)
    assert found.service == Service("snap-system", "snap-api", 9443)
    assert found.left_alone() == {"snap-system"}
    assert found.life_of(hook()) == timedelta(minutes=1)


@pytest.mark.parametrize("text", ["snap-api", "a/b/c", "/b", "a/b:x"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="SNAP_HOOK_SERVICE"):
        read({"SNAP_HOOK_SERVICE": text})


@pytest.mark.parametrize("name", ["h", "H", "a_b", "a.b", "a-b", "x" * 63, "-", "A" * 63])
def test_every_hook_has_a_name_of_its_own_in_the_cluster(name: str) -> None:
    others = {webhook.name_of(other) for other in ("h2", "a", "a-b-c", "X" * 63)}
    found = webhook.name_of(name)
    assert found not in others
    assert len(found) <= 63
    assert found == found.lower()
    assert not set(found) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_what_a_server_adds_is_no_change_and_what_others_change_is_one() -> None:
    wanted = webhook.configuration(Registration("h", "https://a.test/x", "/x", "CA"))
    found = webhook.configuration(Registration("h", "https://a.test/x", "/x", "CA"))
    found["metadata"] |= {"uid": "1", "resourceVersion": "7"}
    found["webhooks"][0]["clientConfig"]["more"] = "of the server"
    assert webhook.says_the_same(found, wanted)
    found["webhooks"][0]["failurePolicy"] = "Fail"
    assert not webhook.says_the_same(found, wanted)
    assert not webhook.says_the_same({"webhooks": wanted["webhooks"] * 2}, wanted)
    assert not webhook.says_the_same({}, wanted)
