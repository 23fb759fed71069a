"""An image as an OCI layout on disk: what is in it, and pushing it.

Source: the OCI image layout and image specifications, 1.1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.devnode.rootfs import LEASHED, REPOSITORY, BuildFailed

_CHART: Final = REPOSITORY / "deploy/helm/snap/Chart.yaml"


@dataclass(frozen=True, slots=True)
class Layout:
    """One image.

    Attributes:
        folder: with oci-layout, index.json and blobs.
        name: the repository that it is pushed to, below the registry.
    """

    folder: Path
    name: str

    @property
    def digest(self) -> str:
        """Of its manifest."""
        index = json.loads((self.folder / "index.json").read_text())
        return str(index["manifests"][0]["digest"])

    @property
    def manifest(self) -> Any:
        """Its manifest."""
        return self._blob(self.digest)

    @property
    def config(self) -> Any:
        """Its configuration."""
        return self._blob(self.manifest["config"]["digest"])

    @property
    def size_bytes(self) -> int:
        """What a node pulls: the layers as they are stored."""
        return sum(int(layer["size"]) for layer in self.manifest["layers"])

    def unpack(self, folder: Path) -> None:
        """Put the files of its layers into ``folder``; none of ours deletes what an earlier one brought."""
        for layer in self.manifest["layers"]:
            blob = self._path(layer["digest"])
            subprocess.run(["tar", "-xzf", str(blob), "-C", str(folder)], check=True)

    def push(self, host: str, ca: Path, tag: str = "") -> str:
        """Push it to the registry ``host`` that ``ca`` vouches for; its reference by digest.

        Args:
            host: the registry.
            ca: PEM file of who vouches for it.
            tag: default: the one that the Helm chart asks for.

        Raises:
            BuildFailed: the registry did not take it.
        """
        with tempfile.TemporaryDirectory(prefix="snap-push-") as certificates:
            shutil.copy(ca, Path(certificates) / "ca.crt")
            argv = ["skopeo", "--insecure-policy", "copy", "--quiet"]
            options = ["--dest-cert-dir", certificates, "--dest-no-creds"]
            target = f"docker://{host}/{self.name}:{tag or _version()}"
            done = subprocess.run(
                [*LEASHED, *argv, *options, f"oci:{self.folder}:latest", target],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise BuildFailed(f"{target} was not pushed: {done.stderr.strip()[-500:]}")
        return f"{host}/{self.name}@{self.digest}"

    def _blob(self, digest: str) -> Any:
        return json.loads(self._path(digest).read_text())

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "/")


def _version() -> str:
    return str(yaml.safe_load(_CHART.read_text())["appVersion"])
