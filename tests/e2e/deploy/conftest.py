"""Helm, kubeconform and kubectl, built once from their sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.devcluster import programs
from deploy.helm import schemas


@pytest.fixture(scope="session")
def known_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a schema of every kind that Kubernetes has."""
    folder = tmp_path_factory.mktemp("schemas")
    schemas.write(schemas.document(print), folder)
    return folder


@pytest.fixture(scope="session")
def kubeconform() -> Path:
    """The program."""
    return programs.ready(programs.KUBECONFORM, print) / "kubeconform"
