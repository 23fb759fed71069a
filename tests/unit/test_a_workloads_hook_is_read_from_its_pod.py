"""The annotations of a post-restore hook: what they may say, and what makes none."""

from __future__ import annotations

import pytest

from agent.restore import post_restore
from agent.restore.post_restore import Hook, OnFailure, Way

P = "snap.weaversoft.io/post-restore"
EXEC = {P: "exec", f"{P}-command": '["/renew", "--all"]'}
HTTP = {P: "http", f"{P}-port": "8080"}


def test_a_pod_without_the_annotation_has_none() -> None:
    assert post_restore.read({f"{P}-command": '["/renew"]'}, "app") is None


def test_a_command() -> None:
    hook = post_restore.read(EXEC, "app")
    assert hook == Hook(way=Way.EXEC, command=("/renew", "--all"), timeout_s=10.0)
    assert hook.on_failure is OnFailure.CONTINUE


def test_a_request() -> None:
    asked = HTTP | {f"{P}-path": "/restored?x=1", f"{P}-timeout": "2.5", f"{P}-failure": "restart"}
    hook = post_restore.read(asked, "app")
    assert hook == Hook(
        way=Way.HTTP,
        port=8080,
        path="/restored?x=1",
        timeout_s=2.5,
        on_failure=OnFailure.RESTART,
    )


@pytest.mark.parametrize(
    ("container", "has_one"), [("app", True), ("side", True), ("other", False)]
)
def test_it_can_be_for_some_containers_only(container: str, has_one: bool) -> None:
    asked = EXEC | {f"{P}-containers": "app, side"}
    assert (post_restore.read(asked, container) is not None) is has_one


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({P: "shell"}, id="other way"),
        pytest.param({f"{P}-command": ""}, id="no command"),
        pytest.param({f"{P}-command": "renew"}, id="no array"),
        pytest.param({f"{P}-command": "[]"}, id="empty"),
        pytest.param({f"{P}-command": '["a\\u0000b"]'}, id="nul"),
        pytest.param({f"{P}-command": '["a", 1]'}, id="no words"),
        pytest.param({f"{P}-timeout": "0"}, id="no time"),
        pytest.param({f"{P}-timeout": "61"}, id="too long"),
        pytest.param({f"{P}-timeout": "nan"}, id="no number"),
        pytest.param({f"{P}-failure": "explode"}, id="other failure"),
        pytest.param({P: "http"}, id="no port"),
        pytest.param({P: "http", f"{P}-port": "http"}, id="port's name"),
        pytest.param({P: "http", f"{P}-port": "65536"}, id="no such port"),
        pytest.param({P: "http", f"{P}-port": "80.5"}, id="half a port"),
        pytest.param({P: "http", f"{P}-port": "80", f"{P}-path": "@evil/"}, id="no path"),
        pytest.param({P: "http", f"{P}-port": "80", f"{P}-path": "/a\r\nb: c"}, id="header"),
    ],
)
def test_what_makes_no_hook_is_said(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"annotation snap\.weaversoft\.io/post-restore"):
        post_restore.read(EXEC | changes, "app")
