"""Runs inside an image's build: print what the image holds as CycloneDX 1.5.

``python3 sbom.py SITE_PACKAGES NAME VERSION [NAME=VERSION …]``: dpkg's packages, the Python distributions in
SITE_PACKAGES, and what was copied without a package.

Source: CycloneDX 1.5 JSON reference; the purl specification (types deb and pypi).
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

Component = dict[str, object]


def debian() -> list[Component]:
    """Every package in dpkg's status."""
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^ID=(\S+)", release, re.MULTILINE)
    distribution = found[1].strip('"') if found else "debian"
    parts = []
    for stanza in Path("/var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)", stanza, re.MULTILINE))
        if "Package" in fields:
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/{distribution}/{name}@{version}?arch={fields['Architecture']}"
            parts.append(_component(name, version, purl))
    return parts


def python(site: str) -> list[Component]:
    """Every distribution in ``site``."""
    found = importlib.metadata.distributions(path=[site])
    named = sorted((one.metadata["Name"], one.version) for one in found)
    return [
        _component(name, version, f"pkg:pypi/{name.lower()}@{version}") for name, version in named
    ]


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "name": name, "version": version, "purl": purl}


def main(site: str, name: str, version: str, *others: str) -> None:
    """Print the whole document."""
    copied = [
        _component(one, number, f"pkg:generic/{one}@{number}")
        for one, _, number in (other.partition("=") for other in others)
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version}},
        "components": [*debian(), *python(site), *copied],
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
