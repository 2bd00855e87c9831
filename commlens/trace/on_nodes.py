"""What run.json says of a run that is recorded on its nodes, and packed from there into its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from commlens.trace.schema import RUN_FILE


def run_info(folder: Path) -> dict[str, Any]:
    """What run.json says; empty where there is none, or a damaged one, which readers can do without."""
    try:
        info = json.loads((folder / RUN_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def pack_entry(info: dict[str, Any]) -> dict[str, str]:
    """Of run.json where a node's ranks write, `local`, and the run's folder, `run`; empty where they write into it."""
    found = info.get("pack")
    if not isinstance(found, dict):
        return {}
    places = {key: place for key in ("local", "run") if isinstance(place := found.get(key), str) and place}
    return places if len(places) == 2 else {}


def live_folder(folder: Path) -> Path:
    """Where this machine has the newest rows of the run in `folder`: its node-local folder while that is there."""
    info = run_info(folder)
    local = Path(pack_entry(info).get("local", folder))
    return local if run_info(local).get("run_id") == info.get("run_id") else folder
