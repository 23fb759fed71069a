"""What the kubelet's checkpoint endpoint says, and what the agent makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from agent import errors
from agent.runtimes import kubelet
from agent.runtimes.kubelet_errors import Gate
from tests.fakes import kubelet as fakes

PODS = {("default", "web-0"): ("app",)}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[fakes.Kubelet]:
    """A kubelet with one pod."""

    async def write(namespace: str, pod: str, container: str, timeout_s: int) -> str:
        return f"/var/lib/kubelet/checkpoints/{fakes.archive_name(namespace, pod, container)}"

    async with fakes.serving(fakes.Kubelet(pods=PODS, checkpoint=write), tmp_path) as made:
        yield made


def access(served: fakes.Kubelet, **changes: Any) -> kubelet.Access:
    """How the agent of node1 reaches it."""
    made = kubelet.Access(served.url, "node1", lambda: "good", (served.ca_file,))
    return replace(made, **changes)


async def test_a_checkpoint_is_made_where_the_kubelet_says(served: fakes.Kubelet) -> None:
    path = await kubelet.Kubelet(access(served)).checkpoint("default", "web-0", "app", 12.2)
    assert path.startswith("/var/lib/kubelet/checkpoints/checkpoint-web-0_default-app-20")
    assert served.asked == [("default", "web-0", "app", 13)]


@pytest.mark.parametrize(
    ("named", "changes", "code", "words"),
    [
        (("default", "web-1", "app"), {}, errors.POD_NOT_FOUND, "no pod default/web-1"),
        (("default", "web-0", "db"), {}, errors.CONTAINER_NOT_FOUND, "no container db"),
        (("default", "web-0", "app"), {"token": lambda: "old"}, "", "does not know the agent's"),
        (("default", "web-0", "app"), {"token": lambda: "weak"}, "", "create on nodes/checkpoint"),
        (("default", "web-0", "app"), {"token": lambda: ""}, "", "SNAP_KUBELET_TOKEN_FILE"),
        (("default", "web-0", "app"), {"node": "node2"}, "", "SNAP_KUBELET_CA_FILE"),
        (("default", "web-0", "app"), {"ca_files": ()}, "", "SNAP_KUBELET_VERIFY"),
    ],
    ids=["pod", "container", "token", "forbidden", "no token", "other name", "unknown CA"],
)
async def test_a_refusal_says_what_to_do(
    served: fakes.Kubelet,
    named: tuple[str, str, str],
    changes: dict[str, Any],
    code: str,
    words: str,
) -> None:
    with pytest.raises(errors.Refused) as caught:
        await kubelet.Kubelet(access(served, **changes)).checkpoint(*named, 10)
    assert words in caught.value.message
    assert caught.value.code == (code or errors.CHECKPOINT_REFUSED)
    assert served.asked == []


async def test_a_failed_dump_carries_the_runtimes_words(served: fakes.Kubelet) -> None:
    served.checkpoint = fakes.no_runtime
    with pytest.raises(errors.CommandFailed) as caught:
        await kubelet.Kubelet(access(served)).checkpoint("default", "web-0", "app", 10)
    assert caught.value.code == errors.CHECKPOINT_FAILED
    assert "Unimplemented" in caught.value.details


async def test_a_kubelet_that_is_away_is_tried_again_later(served: fakes.Kubelet) -> None:
    nobody = access(served, url="https://127.0.0.1:1")
    with pytest.raises(errors.Retryable, match="No kubelet listens"):
        await kubelet.Kubelet(nobody).checkpoint("default", "web-0", "app", 10)


@pytest.mark.parametrize(
    ("changes", "gate", "found"),
    [
        ({}, True, Gate.ON),
        ({}, False, Gate.OFF),
        ({"token": lambda: "old"}, True, Gate.UNAUTHORIZED),
        ({"token": lambda: "weak"}, True, Gate.FORBIDDEN),
        ({"token": lambda: ""}, True, Gate.NO_TOKEN),
        ({"ca_files": ()}, True, Gate.UNTRUSTED),
        ({"ca_files": (), "verify": False}, True, Gate.ON),
        ({"url": "https://127.0.0.1:1"}, True, Gate.ABSENT),
    ],
    ids=["on", "off", "401", "403", "no token", "untrusted", "not verified", "absent"],
)
async def test_the_gate_is_found_without_a_checkpoint(
    served: fakes.Kubelet, changes: dict[str, Any], gate: bool, found: Gate
) -> None:
    served.gate = gate
    assert (await kubelet.Kubelet(access(served, **changes)).gate())[0] is found
    assert served.asked == []


async def test_the_name_of_the_node_will_do_where_an_address_is_asked(tmp_path: Path) -> None:
    async with fakes.serving(fakes.Kubelet(), tmp_path, "node7", "127.0.0.2") as served:
        asked = access(served, node="node7")
        url = URL(served.url).with_host("127.0.0.1")
        assert kubelet._expected_names(asked, url) == ("node7",)
        assert kubelet._expected_names(asked, url.with_host("10.1.2.3")) == (None, "node7")
        assert kubelet._expected_names(asked, url.with_host("node7.example")) == (None,)
        assert (await kubelet.Kubelet(asked).gate())[0] is Gate.ON


async def test_a_token_is_read_anew_at_each_call_and_shown_nowhere(served: fakes.Kubelet) -> None:
    tokens = iter(["old", "good"])
    asked = access(served, token=lambda: next(tokens))
    client = kubelet.Kubelet(asked)
    assert (await client.gate())[0] is Gate.UNAUTHORIZED
    assert (await client.gate())[0] is Gate.ON
    assert "lambda" not in repr(asked)


def test_only_archives_of_the_container_and_the_moment_are_ours(tmp_path: Path) -> None:
    names = [
        "checkpoint-web-0_default-app-2026-11-26T09:30:00Z.tar",
        "checkpoint-web-0_default-app-2026-11-26T09:30:59Z.tar",
        "checkpoint-web-0_default-app2-2026-11-26T09:30:00Z.tar",
        "checkpoint-web-0_default-app-2026-11-26T09:29:59Z.tar",
        "checkpoint-web-0_default-app-2026-11-26T10:30:01+01:00.tar",
        "checkpoint-web-0_default-app-x.tar",
    ]
    for name in names:
        (tmp_path / name).touch()
    begin_s = 1795685400.5  # 2026-11-26T09:30:00.5Z
    ours = kubelet.ArchiveNames("default", "web-0", "app")
    found = ours.begun_between(tmp_path, begin_s, begin_s + 10)
    assert {path.name for path in found} == {names[0], names[4]}
