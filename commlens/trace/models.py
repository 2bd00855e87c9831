"""What a rank's description says of the job's models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def model_signature(info: Mapping[str, Any]) -> str | None:
    """A short name of a rank's models, the same for the same parameters; None where none are known.

    Shapes and data types only: nothing of the job's names goes into it.

    Args:
        info: Content of rank.json.
    """
    models = [model.get("parameters") or [] for model in info.get("models") or []]
    shapes = [[[p.get("shape"), p.get("dtype"), p.get("trainable")] for p in parameters] for parameters in models]
    if not any(shapes):
        return None
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]
