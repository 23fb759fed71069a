"""Runs inside an image's build: print what pyproject.toml asks for in one half of the project.

``python3 requirements.py agent|controlplane``: a layer of its own, made anew only when these lines change.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"][sys.argv[1]]]))
