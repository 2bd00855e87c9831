"""What thousands of ranks say alike, kept once: the members of their groups, their model, their environment."""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from typing import Any


class Alike:
    """Values seen so far, by their content."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Any] = {}

    def of(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """A description whose lists and tables are those of an earlier one where they are alike."""
        return {key: self._inner(value) if isinstance(value, dict | list) else value for key, value in info.items()}

    def _inner(self, value: Any) -> Any:
        if isinstance(value, list):
            value = [self._once(each) for each in value]
        return self._once(value)

    def _once(self, value: Any) -> Any:
        return self._seen.setdefault(marshal.dumps(value), value) if isinstance(value, dict | list) else value
