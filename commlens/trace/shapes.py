"""What rank.json may hold where others read it without looking: damaged, it is as if it had not been written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# A type; {} any object; {"key": shape} an object whose keys, where they are there, have these shapes ("*": all others
# too); [shape] a list of such. null is not known, and fits everywhere but in a list.
_PARAMETER: Final = {"shape": [int], "dtype": str, "num_bytes": int}
_MODEL: Final = {
    "kind": str,
    "group": str,
    "flags": {},
    "accepts": [str],
    "bucket_bytes": [int],
    "bucket_parameters": [[int]],
    "ready_order": [int],
    "unused_bytes": [int],
    "parameters": [_PARAMETER],
}
_GROUP: Final = {"name": str, "ranks": [int], "size": int, "workers": int, "backend": str}
_SHAPES: Final[dict[str, Any]] = {
    "host": str,
    "boot_id": str,
    "backend": str,
    "groups": [_GROUP],
    "models": [_MODEL],
    "environment": {},
    "hooks": {},
    "overhead": {},
    "clock": {},
    "end": {"how": str, "ns": int, "error": str, "left_ns": int},
    "gave_up": {"ns": int, "error": str},
    "aggregates": {"quota_bytes": int, "from_step": int},
    "flight_recorder": {"states": {"*": [int]}, "written_ns": int},
    "windows": [{"state": str}],
}


def with_known_shapes(info: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """rank.json without what has another shape than a recorder gives it, and the names of that.

    A list stays without the entries that do not fit, but for `models`: others count in it.
    """
    kept, damaged = dict(info), []
    for name, shape in _SHAPES.items():
        if name not in info or _fits(info[name], shape):
            continue
        damaged.append(name)
        whole = name == "models" or not isinstance(shape, list) or not isinstance(info[name], list)
        kept[name] = None if whole else [each for each in info[name] if each is not None and _fits(each, shape[0])]
    return kept, damaged


def _fits(value: Any, shape: Any) -> bool:
    if value is None:
        return True
    if isinstance(shape, type):
        return isinstance(value, shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(each is not None and _fits(each, shape[0]) for each in value)
    if not isinstance(value, dict):
        return False
    shapes = ((found, shape.get(key, shape.get("*"))) for key, found in value.items())
    return all(inner is None or _fits(found, inner) for found, inner in shapes)
