"""What is asked of a job while it runs: one file in its run folder, which every rank looks at once a second."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

CONTROL_FILE: Final = "control.json"
CAPTURE, PAUSE, RESUME = KINDS = ("capture", "pause", "resume")
_KEPT: Final = 32  # requests; older ones have been answered long since


class Request(NamedTuple):
    """One request: from step `step` on, for `steps` steps where it is a capture; a later one has a higher `number`."""

    number: int
    kind: str
    step: int
    steps: int = 0


def read_requests(folder: Path) -> list[Request]:
    """The requests in a run folder, oldest first; none where there is no such file, or a damaged one."""
    try:
        found = json.loads((folder / CONTROL_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    listed = found.get("requests") if isinstance(found, dict) else None
    requests = [_request(each) for each in listed] if isinstance(listed, list) else []
    return sorted(each for each in requests if each is not None)


def add_request(folder: Path, request: Request) -> None:
    """Adds a request to those in a run folder; a rank reads all of them or those before.

    Raises:
        OSError: It cannot be written.
    """
    _write(folder, [*read_requests(folder), request][-_KEPT:])


def _write(folder: Path, requests: Sequence[Request]) -> None:
    part = folder / f".{CONTROL_FILE}.{uuid.uuid4().hex}"
    try:
        part.write_text(json.dumps({"requests": [each._asdict() for each in requests]}, indent=1), encoding="ascii")
        part.replace(folder / CONTROL_FILE)
    finally:
        part.unlink(missing_ok=True)


def _request(found: Any) -> Request | None:
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        return None
    numbers = [found.get(name, 0) for name in ("number", "step", "steps")]
    if not all(type(each) is int and each >= 0 for each in numbers):
        return None
    return Request(numbers[0], str(found["kind"]), numbers[1], numbers[2])
