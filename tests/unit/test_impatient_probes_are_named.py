"""A liveness probe that a pause can trip is warned about when its pod is checkpointed."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.checkpoints import probing


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        pytest.param(None, "", id="none"),
        pytest.param({"tcpSocket": {"port": 1}}, "", id="Kubernetes' own numbers"),
        pytest.param({"failureThreshold": 3, "periodSeconds": 1}, "", id="three"),
        pytest.param({"failureThreshold": 1, "periodSeconds": 1}, "periodSeconds 1:", id="one"),
        pytest.param({"failureThreshold": 2}, "periodSeconds 10:", id="two"),
    ],
)
def test_fewer_than_three_failures(probe: dict[str, Any] | None, words: str) -> None:
    template = {"spec": {"containers": [{"name": "b"}, {"name": "a", "livenessProbe": probe}]}}
    said = probing.impatience(template, "a")
    assert bool(said) == bool(words)
    assert all(words in one and "failureThreshold to 3" in one for one in said)
    assert probing.impatience(template, "b") == ()


def test_a_pod_that_nobody_knows() -> None:
    assert probing.impatience(None, "a") == ()
