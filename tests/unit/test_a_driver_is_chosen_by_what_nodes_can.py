"""How a pod is restored, and where, by what the agents say of their nodes."""

from __future__ import annotations

import pytest

from controlplane.checkpoints import drivers, podmaking
from controlplane.checkpoints.drivers import Way
from controlplane.checkpoints.podmaking import NewPod
from controlplane.errors import Conflict

BOTH = ("runtime", "image")


@pytest.mark.parametrize(
    ("asked", "node", "known", "way"),
    [
        pytest.param("auto", "", {"a": BOTH}, Way("runtime"), id="never the image by itself"),
        pytest.param("auto", "a", {"a": BOTH}, Way("runtime", ("a",)), id="a node is named"),
        pytest.param("image", "", {"a": BOTH, "b": BOTH}, Way("image"), id="anywhere"),
        pytest.param(
            "image",
            "",
            {"c": BOTH, "b": ("runtime",), "a": ("image",)},
            Way("image", ("a", "c")),
            id="where runtimes can",
        ),
        pytest.param("image", "x", {"a": ()}, Way("image", ("x",)), id="a node without an agent"),
    ],
)
def test_it_can_be_done(asked: str, node: str, known: dict[str, tuple[str, ...]], way: Way) -> None:
    assert drivers.choose("c1", asked, node, known) == way


@pytest.mark.parametrize(
    ("asked", "node", "known", "words"),
    [
        pytest.param("auto", "", {"a": ("image",)}, "nodes/<node>/prepare", id="none is prepared"),
        pytest.param("runtime", "a", {"a": ()}, "nodes/a/prepare", id="the node is not"),
        pytest.param("image", "a", {"a": ("runtime",)}, "restores no images", id="it can't"),
        pytest.param("image", "", {"a": ("runtime",)}, "use driver runtime", id="none can"),
        pytest.param("image", "", {}, "No node of cluster c1", id="no agent"),
    ],
)
def test_it_can_not(asked: str, node: str, known: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(Conflict, match=words):
        drivers.choose("c1", asked, node, known)


@pytest.mark.parametrize("node", ["", "a"], ids=["any node", "that node"])
def test_who_asks_too_early_is_told_to_ask_again(node: str) -> None:
    with pytest.raises(Conflict, match="being prepared for restores; ask again") as told:
        drivers.choose("c1", "auto", node, {"a": (), "b": ()}, {"a"})
    assert "POST" not in told.value.message
    assert drivers.choose("c1", "auto", "", {"a": (), "b": BOTH}, {"a"}) == Way("runtime")


def test_a_pod_is_bound_to_the_nodes_that_can() -> None:
    wanted = NewPod("ns", "new", "image", ("id", "sha256:1"), {"app": "r/x@y"}, nodes=("a", "b"))
    gpu = {"key": "gpu", "operator": "Exists"}
    terms = [{"matchExpressions": [gpu]}]
    own = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    template = {"metadata": {}, "spec": {"affinity": {"nodeAffinity": own}, "containers": []}}
    made = podmaking.pod(template, wanted)["spec"]["affinity"]["nodeAffinity"]
    required = made["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [(t["matchExpressions"], t["matchFields"][0]["values"]) for t in required] == [
        ([gpu], ["a"]),
        ([gpu], ["b"]),
    ]
