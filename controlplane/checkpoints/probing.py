"""What a pod's probes make of the pause that a checkpoint is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PATIENT: Final = 3  # failures in a row; Kubernetes' own default
# Source: kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes, the defaults
_PERIOD_S: Final = 10


def impatience(template: Mapping[str, Any] | None, container_name: str) -> tuple[str, ...]:
    """A warning if the kubelet restarts the container after fewer failures than a pause may cause.

    Args:
        template: the pod's; None: it is not known.
        container_name: which of its containers.
    """
    spec = (template or {}).get("spec") or {}
    for container in spec.get("containers") or ():
        probe = container.get("livenessProbe")
        if container.get("name") != container_name or not probe:
            continue
        failures = probe.get("failureThreshold") or PATIENT
        if failures < PATIENT:
            period_s = probe.get("periodSeconds") or _PERIOD_S
            said = (
                f"The liveness probe of container {container_name} has failureThreshold {failures} and "
                f"periodSeconds {period_s}: the kubelet may restart it for a pause; set failureThreshold "
                f"to {PATIENT} or more."
            )
            return (said,)
    return ()
