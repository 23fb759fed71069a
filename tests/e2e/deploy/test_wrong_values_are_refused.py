"""The chart's schema refuses what would only fail later, in the cluster."""

from __future__ import annotations

import pytest

from deploy.helm import rendering

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    "wrong",
    [
        "clusterNam=x",
        "clusterName=-x",
        "api.replicas=2",
        "api.persistence.size=big",
        "api.settings.snap_x=1",
        "api.logLevel=loud",
        "api.rbac.hooks=yes",
        "agent.prepare=always",
        "agent.kubelet.url=http://127.0.0.1:10255",
        "agent.controlPlane.address=snap.example.com",
        "agent.ca.pem=no certificate",
        "agent.updateStrategy.type=Recreate",
        "images.api.digest=sha256:12",
        "networkPolicy.nodeCIDRs={10.0.0.1}",
        "networkPolicy.clients[0].cidr=10.0.0.0/8",
        "uninstall.timeoutSeconds=1",
    ],
)
def test_a_wrong_value_is_refused(wrong: str) -> None:
    with pytest.raises(rendering.RenderFailed, match="don't meet the specifications"):
        rendering.template(print, wrong)
