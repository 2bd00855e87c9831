"""Reading rank.json without trusting its shape: what is absent, or of another shape, is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Info = Mapping[str, Any]


def words(info: Info, name: str) -> dict[str, str]:
    """A table of names and words, such as "environment" or "hooks"; empty where there is none."""
    told = info.get(name)
    return {str(key): str(value) for key, value in told.items() if value is not None} if isinstance(told, dict) else {}


def entries(info: Info, name: str) -> list[dict[str, Any]]:
    """A list of tables, such as "interfaces" or "links"; empty where there is none."""
    told = info.get(name)
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def machine_of(info: Info) -> str:
    """What tells its host from others: the boot id, else the name; "" where neither is known."""
    return str(info.get("boot_id") or info.get("host") or "")
