"""Labels of ours in a cluster, and what a label's value may be.

Source: kubernetes.io/docs/concepts/overview/working-with-objects/labels (syntax and character set).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "snap.weaversoft.io/"
_LABEL_CHARS: Final = 63
_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def of_cpu(features: Sequence[str]) -> str:
    """Equal for CPUs of equal features: 16 hexadecimal digits; empty for none."""
    if not features:
        return ""
    return hashlib.sha256("\n".join(sorted(set(features))).encode()).hexdigest()[:16]


def of_program(name: str, version: str) -> str:
    """A program and its version; empty where the name is not known."""
    return value(f"{name}-{version}") if name else ""


def value(text: str) -> str:
    """``text`` as a label's value."""
    return _NOT_IN_LABELS.sub("-", text)[:_LABEL_CHARS].strip("-_.")
