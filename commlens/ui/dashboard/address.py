"""What the address of a page says: which run, which part of it. Anything else in it is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

_MOST: Final = 2_000  # characters of an address that are looked at
_KEYS: Final = re.compile(r"[a-z_]{1,20}")

Query = Mapping[str, str]


def read_query(text: str | None) -> dict[str, str]:
    """Names and values of "?run=...&from=..."; the last of equal names counts."""
    pairs = parse_qsl((text or "")[:_MOST].lstrip("?"), keep_blank_values=False)
    return {name: value for name, value in pairs if _KEYS.fullmatch(name)}


def merged(search: str | None, link: str | None, run: str) -> dict[str, str]:
    """What the address said when it was opened, and what was chosen since, where that is of the run that is shown."""
    chosen = read_query(link)
    return {**read_query(search), **(chosen if chosen.get("run") == run else {})}


def write_query(query: Mapping[str, str | int | float | None]) -> str:
    """The same as text, with a "?" where there is anything; None and "" are left out."""
    said = {name: str(value) for name, value in query.items() if value is not None and value != ""}
    return f"?{urlencode(said)}" if said else ""


def whole(query: Query, name: str, low: int, high: int) -> int | None:
    """A whole number between bounds; None where there is none."""
    value = query.get(name, "")
    if not re.fullmatch(r"-?\d{1,19}", value):
        return None
    return min(max(int(value), low), high)


def one_of(query: Query, name: str, known: tuple[str, ...]) -> str:
    """One of some words; the first where there is none, or another."""
    value = query.get(name, "")
    return value if value in known else known[0]
