"""The manifests give the rights that docs/operations.md lists, verb by verb, and none that were promised against."""

from __future__ import annotations

import re
from typing import Any

import yaml

from deploy.devnode.rootfs import REPOSITORY

ROW = re.compile(
    r"^\| `(snap-\w+)` \| (cluster|own namespace) \| `([^`]+)` \| ([^|]+) \| ([^|]*) \|",
    re.MULTILINE,
)
Right = tuple[str, str, str, str]


def _rules() -> list[tuple[str, str, dict[str, Any]]]:
    text = (REPOSITORY / "deploy/kubernetes/base/rbac.yaml").read_text()
    kinds = {"ClusterRole": "cluster", "Role": "own namespace"}
    return [
        (one["metadata"]["name"], kinds[one["kind"]], rule)
        for one in yaml.safe_load_all(text)
        if one["kind"] in kinds
        for rule in one["rules"]
    ]


def _given() -> set[Right]:
    found = set()
    for account, scope, rule in _rules():
        names = rule.get("resourceNames") or [""]
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                what = f"{group}/{resource}" if group else resource
                for name in names:
                    for verb in rule["verbs"]:
                        found.add((account, scope, f"{what} {name}".strip(), verb))
    return found


def test_the_table_lists_every_verb_and_no_other() -> None:
    text = (REPOSITORY / "docs/operations.md").read_text()
    listed = {
        (account, scope, what, verb.strip())
        for account, scope, what, verbs, _ in ROW.findall(text)
        for verb in verbs.split(",")
    }
    assert listed == _given()


def test_the_agent_may_ask_for_checkpoints_and_nothing_else() -> None:
    assert {right for right in _given() if right[0] == "snap-agent"} == {
        ("snap-agent", "cluster", "nodes/checkpoint", "create")
    }


def test_nobody_may_read_secrets_or_enter_containers() -> None:
    for _, _, rule in _rules():
        assert not {"*", "secrets", "nodes/proxy", "pods/exec"} & set(rule["resources"])
        assert not {"*", "bind", "escalate", "impersonate"} & set(rule["verbs"])
