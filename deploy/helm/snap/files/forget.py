"""Take SNAP's labels and its condition off every node, and its hooks' webhooks away; a job runs this after SNAP was
removed.

Source: the Kubernetes API's strategic merge patch: a label of null and a condition with ``$patch: delete`` go away.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("SNAP_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
PREFIX = "snap.weaversoft.io/"
CONDITION = "SnapReady"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
OURS = "?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dsnap"


def call(method: str, path: str, body: object = None) -> Any:
    """What the API server answered.

    Raises:
        OSError: it did not, or with an error.
    """
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    link = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    headers = {
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
        "Content-Type": "application/strategic-merge-patch+json",
    }
    try:
        link.request(method, path, None if body is None else json.dumps(body), headers)
        answer = link.getresponse()
        told = json.loads(answer.read() or b"{}")
    finally:
        link.close()
    if answer.status >= 400:
        raise OSError(f"{method} {path}: {told.get('message', answer.status)}")
    return told


def forget(node: Any) -> str:
    """Take away what is ours on ``node``; one line about it."""
    name = node["metadata"]["name"]
    labels = [key for key in node["metadata"].get("labels", {}) if key.startswith(PREFIX)]
    if labels:
        call("PATCH", f"/api/v1/nodes/{name}", {"metadata": {"labels": dict.fromkeys(labels)}})
    ours = [one for one in node["status"].get("conditions", []) if one["type"] == CONDITION]
    if ours:
        gone = {"status": {"conditions": [{"type": CONDITION, "$patch": "delete"}]}}
        call("PATCH", f"/api/v1/nodes/{name}/status", gone)
    return f"{name}: {len(labels)} labels and {len(ours)} conditions removed"


def unregister(webhook: Any) -> str:
    """Take a hook's webhook away, which nobody answers any more; one line about it."""
    name = webhook["metadata"]["name"]
    call("DELETE", f"{WEBHOOKS}/{name}")
    return f"webhook {name} removed"


def main() -> int:
    """Forget on every node, and every webhook; the exit status."""
    try:
        for webhook in call("GET", WEBHOOKS + OURS)["items"]:
            sys.stdout.write(unregister(webhook) + "\n")
        for node in call("GET", "/api/v1/nodes")["items"]:
            sys.stdout.write(forget(node) + "\n")
    except (OSError, http.client.HTTPException) as cause:
        sys.stdout.write(f"forget: {cause}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
