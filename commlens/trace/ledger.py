"""Predictions beside what was measured, kept for later: the track record.

One JSON object a line, appended, in $XDG_STATE_HOME/commlens/ledger.jsonl (~/.local/state where that is not
set); COMMLENS_LEDGER names another file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from commlens.errors import TraceError, WriteError

_GAIN = ("gain_ms", "low_ms", "high_ms")


@dataclass(frozen=True)
class Entry:
    """One change that was tried.

    Attributes:
        date: ISO 8601, as the caller says.
        fix: the changes, as `changes.parse_all` reads them.
        verdict: as `analyzers.verification` has them.
        measured: before_ms, after_ms, gain_ms, low_ms, high_ms.
        predicted: step_ms, gain_ms, low_ms, high_ms; None where nothing was predicted.
        torch: its version.
        backend: of the job.
        world_size: ranks.
        model: see `models.model_signature`.
    """

    date: str
    fix: str
    verdict: str
    measured: Mapping[str, float]
    predicted: Mapping[str, float] | None = None
    torch: str | None = None
    backend: str | None = None
    world_size: int | None = None
    model: str | None = None


def ledger_path() -> Path:
    """The user's ledger."""
    named = os.environ.get("COMMLENS_LEDGER")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(named or f"{state}/commlens/ledger.jsonl").expanduser()


def append(entry: Entry, path: Path) -> None:
    """Adds an entry in one write, after a line that an earlier writer broke off too.

    Raises:
        WriteError: The file cannot be written.
    """
    line = json.dumps(asdict(entry), allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            broken = file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(("\n" if broken else "").encode() + line.encode())
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}; COMMLENS_LEDGER names another file to keep results in"
        ) from error


def read(path: Path) -> tuple[list[Entry], int]:
    """The entries of a ledger, oldest first, and how many lines are no entries; an absent file has none.

    Raises:
        TraceError: The file may not be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}; COMMLENS_LEDGER names another file") from error
    entries = [_entry(line) for line in lines if line.strip()]
    whole = [entry for entry in entries if entry is not None]
    return whole, len(entries) - len(whole)


def _entry(line: str) -> Entry | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in ("date", "fix", "verdict")):
        return None
    predicted = said.get("predicted")
    if not _is_gain(said.get("measured")) or not (predicted is None or _is_gain(predicted)):
        return None
    known = {field.name for field in fields(Entry)}
    return Entry(**{name: value for name, value in said.items() if name in known})


def _is_gain(numbers: Any) -> bool:
    """Whether a gain and its interval are there."""
    if not isinstance(numbers, dict):
        return False
    return all(type(numbers.get(name)) in (int, float) and math.isfinite(numbers[name]) for name in _GAIN)
