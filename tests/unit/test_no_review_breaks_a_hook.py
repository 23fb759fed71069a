"""Reviews with anything in them: always an answer, always a patch that can be applied, nothing lost from the pod."""

from __future__ import annotations

import base64
import copy
import json
import random
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from controlplane.hook.admission import NotAReview, answer
from controlplane.hook.index import Index
from tests.fakes.offers import POLICY, cluster, offer
from tests.fakes.pods import new_pod, node, review

ROUNDS = 300
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**53,
    1.5,
    "",
    "snap",
    "a/b~c",
    "\u2028\x00\U0001f40d",
    [],
    [None],
    [[]],
    ["x", 1],
    {},
    {"": None},
    {"name": "main"},
    {"kubernetes.io/hostname": ["a"]},
    [{"key": "gpu", "operator": "Gt", "values": ["x"]}],
)


def full_pod() -> dict[str, Any]:
    """A pod with everything in it that is looked at."""
    pod = new_pod("web-1")
    pod["metadata"]["annotations"] = {"other/annotation": "x"}
    term = {
        "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]
    }
    pod["spec"] |= {
        "nodeSelector": {},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                "preferredDuringSchedulingIgnoredDuringExecution": [],
            }
        },
        "securityContext": {"runAsUser": 1000},
        "initContainers": [{"name": "init"}],
        "hostNetwork": False,
    }
    pod["spec"]["containers"].append({"name": "side", "image": "registry.test/side:1"})
    return pod


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in ``value``."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def mutate(review_: dict[str, Any], chance: random.Random) -> None:
    """Change, remove or add something anywhere."""
    path = chance.choice([p for p in places(review_) if p])
    holder = review_
    for step in path[:-1]:
        holder = holder[step]
    deed = chance.random()
    if deed < 0.2:
        del holder[path[-1]]
    elif deed < 0.3 and isinstance(holder, dict):
        holder[chance.choice(["x", "a/b", "~", "name"])] = chance.choice(VALUES)
    else:
        holder[path[-1]] = copy.deepcopy(chance.choice(VALUES))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("driver", ["runtime", "image"])
def test_every_answer_is_allowed_and_its_patch_can_be_applied(seed: int, driver: str) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same ones each time
    index = Index((offer(full_pod()), offer(full_pod(), "side")))
    seen = cluster(
        node("a"), node("b", prepared=False, taints=[{"key": "t", "effect": "NoExecute"}])
    )
    policy = replace(POLICY, driver=driver)
    changed = 0
    for _ in range(ROUNDS):
        body = review(full_pod())
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            mutate(body, chance)
        sent = json.loads(json.dumps(body))
        try:
            given = answer(sent, policy, index, seen)
        except NotAReview:
            continue
        assert sent == json.loads(json.dumps(body)), "the review was changed"
        response = given.response["response"]
        assert response["allowed"] is True
        assert response["uid"] == body["request"]["uid"]
        if "patch" in response:
            changed += 1
            operations = json.loads(base64.b64decode(response["patch"]))
            assert {o["op"] for o in operations} == {"add"}
            after = jsonpatch.apply_patch(sent["request"]["object"], operations)
            assert isinstance(after["metadata"]["annotations"], dict)
            again = answer(review(after), policy, index, seen).response["response"]
            assert "patch" not in again or given.restores == {}
    assert changed > ROUNDS / 4
