"""What the packing process of a node says to its ranks: one small file in the node-local run folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

STATE_FILE: Final = ".packer.json"
WAITING, PACKED, FAILED = "waiting", "packed", "failed"  # for ranks to leave; all of them; at the end, for good


class State(NamedTuple):
    """Where the packing process is; `why` it failed last, a clause, empty where it did not."""

    name: str = WAITING
    why: str = ""


def write_state(local: Path, state: State) -> None:
    """Replaces what was said before.

    Raises:
        OSError: It cannot be written.
    """
    part = local / f"{STATE_FILE}.{os.getpid()}"
    part.write_text(json.dumps(state._asdict()), encoding="utf-8")
    part.replace(local / STATE_FILE)


def read_state(local: Path) -> State:
    """What was said last; that it waits, where nothing was."""
    try:
        found: Any = json.loads((local / STATE_FILE).read_bytes())
        return State(str(found["name"]), str(found["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        return State()
