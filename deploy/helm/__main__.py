"""``python -m deploy.helm``: write what comes from the chart into deploy/kubernetes."""

from __future__ import annotations

import sys

from deploy.devnode.rootfs import REPOSITORY, BuildFailed
from deploy.helm import rendering


def main() -> int:
    """Write the files whose content changed; the exit status."""
    try:
        files = rendering.files(print)
    except (BuildFailed, rendering.RenderFailed) as problem:
        sys.stderr.write(f"dev manifests: {problem}\n")
        return 1
    for name, text in files.items():
        path = rendering.KUSTOMIZE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"written: {path.relative_to(REPOSITORY)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
