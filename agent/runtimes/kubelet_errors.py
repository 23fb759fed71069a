"""What the kubelet's refusals and silences mean: one table for calls, one for the probe.

Source: Kubernetes, "Kubelet Checkpoint API", and the kubelet's own sentences (pkg/kubelet/server,
checkpoint); 404 without one of them: the route is not there, its feature gate is off.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp

from agent import errors

_NO_POD: Final = "pod does not exist"


class Gate(StrEnum):
    """What asking for a checkpoint of a pod that can't be has found."""

    ON = "on"
    OFF = "off"
    ABSENT = "absent"  # nobody listens
    NO_TOKEN = "no_token"  # noqa: S105 - a state
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNTRUSTED = "untrusted"
    ODD = "odd"


class NoToken(Exception):
    """There is no token to show; the message says why."""


FAILURES: Final = (aiohttp.ClientError, ssl.SSLError, NoToken, OSError, ValueError)  # of a call


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kubelet said."""

    status: int
    text: str


def gate_of(answer: Answer) -> Gate:
    """What an answer to the harmless call says."""
    match answer.status:
        case 404:
            return Gate.ON if _NO_POD in answer.text else Gate.OFF
        case 405:
            return Gate.OFF
        case 401:
            return Gate.UNAUTHORIZED
        case 403:
            return Gate.FORBIDDEN
    return Gate.ODD


def gate_without_answer(cause: Exception) -> Gate:
    """What it says when there was no answer."""
    match cause:
        case NoToken():
            return Gate.NO_TOKEN
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Gate.UNTRUSTED
        case aiohttp.ClientConnectorError():
            return Gate.ABSENT
    return Gate.ODD


def unanswered(cause: Exception, url: str) -> errors.SnapError:
    """The error of our tree for a call that got no answer."""
    said = str(cause)[:500]
    match cause:
        case NoToken():
            return errors.Refused(
                "The agent has no service-account token for the kubelet; set "
                "SNAP_KUBELET_TOKEN_FILE or use another engine.",
                details=said,
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return errors.Refused(
                f"The kubelet at {url} shows a certificate that the agent does not trust; name its "
                "CA in SNAP_KUBELET_CA_FILE, have the cluster sign it (serverTLSBootstrap), or set "
                "SNAP_KUBELET_VERIFY=no.",
                details=said,
            )
        case aiohttp.ClientConnectorError():
            return errors.Retryable(f"No kubelet listens at {url}.", after_s=5.0, details=said)
        case TimeoutError():
            return errors.Retryable(
                f"The kubelet at {url} did not answer in time.", after_s=10.0, code=errors.TIMEOUT
            )
        case ValueError():
            return errors.Refused(f"SNAP_KUBELET_URL {url!r} is no address.", details=said)
    return errors.Retryable(
        f"The connection to the kubelet at {url} broke off.", after_s=5.0, details=said
    )


def refused(answer: Answer, wanted: tuple[str, str, str]) -> errors.SnapError:
    """The error of our tree for an answer other than 200 to a call for (namespace, pod, container)."""
    namespace, pod, container = wanted
    said = answer.text[:4000]
    match answer.status:
        case 401:
            return errors.Refused(
                "The kubelet does not know the agent's token; give it a service account's "
                "(SNAP_KUBELET_TOKEN_FILE) and let the kubelet ask the API server about it "
                "(authentication.webhook.enabled).",
                details=said,
            )
        case 403:
            return errors.Refused(
                "The kubelet refuses checkpoints to the agent's service account; grant it create "
                "on nodes/checkpoint.",
                details=said,
            )
        case 404 if _NO_POD in said:
            message = f"The kubelet knows no pod {namespace}/{pod}."
            return errors.NotFound(message, code=errors.POD_NOT_FOUND)
        case 404 if "does not exist" in said:
            message = f"The kubelet knows no container {container} in pod {namespace}/{pod}."
            return errors.NotFound(message, code=errors.CONTAINER_NOT_FOUND)
        case 404 if "timeout parameter" in said:
            message = "The kubelet does not take this timeout."
            return errors.Refused(message, code=errors.VALIDATION_ERROR, details=said)
        case 404 | 405:
            return errors.Refused(
                "The kubelet takes no checkpoints; turn on its feature gate ContainerCheckpoint "
                "(on by default from Kubernetes 1.30) or use another engine.",
                details=said,
            )
        case 500:
            sentence = f"The kubelet could not checkpoint container {container}; it runs on."
        case _:
            sentence = f"The kubelet answered {answer.status} to the checkpoint of {container}."
    failed = errors.CommandFailed(
        sentence, argv=("kubelet", "checkpoint"), status=answer.status, log_tail=said
    )
    failed.code = errors.CHECKPOINT_FAILED
    return failed
