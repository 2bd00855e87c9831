"""What a reader of results should know of a Flight Recorder dump."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from commlens.trace.importers.flight_recorder_entries import COMPLETED, TIMED_OUT, UNKNOWN, Entry
from commlens.trace.schema import MISSING, POINT_TO_POINT

_NEWEST: Final = 2  # major version of the format
_SHOWN: Final = 3
_LONGEST: Final = 60  # characters of a name

Settled = Sequence[tuple[Entry, str]]


def notes(
    dump: Mapping[str, Any], count: int, entries: Sequence[Entry], settled: Settled, seqs: Sequence[int]
) -> list[str]:
    """One line each.

    Args:
        dump: as read.
        count: entries in it.
        entries: those that can be read.
        settled: operations and their states.
        seqs: sequence numbers of those that become rows.
    """
    rows = [(entry, state) for entry, state in settled if entry.op]
    found = [
        _version(dump.get("version")),
        f"entries that cannot be read, left out: {count - len(entries)} of {count}" if len(entries) < count else "",
        _unknown([entry for entry, _ in settled if not entry.op]),
        _lost(entries),
        _under_way(rows, seqs),
        _unnumbered(rows, seqs),
        _gloo(rows),
        _timed(rows),
    ]
    return [each for each in found if each] or ([] if count else ["the dump has no entries"])


def lacking(entries: Sequence[Entry]) -> int:
    """Entries that are not there although earlier and later ones are: torch can be told to leave out what is over."""
    ids = {entry.record_id for entry in entries} - {MISSING}
    return max(ids) - min(ids) + 1 - len(ids) if ids else 0


def _version(said: object) -> str:
    major = said.partition(".")[0] if isinstance(said, str) else ""
    if major.isdecimal() and len(major) < 9 and int(major) > _NEWEST:
        return f"the dump has format version {_shown(str(said))}, known are those up to {_NEWEST}: it may be misread"
    return ""


def _unknown(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    titles = Counter(_shown(entry.title) for entry in entries).most_common(_SHOWN)
    names = ", ".join(f"{title or 'without name'} ({count})" for title, count in titles)
    return f"entries of operations that have no row, left out: {names}"


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST])


def _lost(entries: Sequence[Entry]) -> str:
    first = min((entry.record_id for entry in entries if entry.record_id != MISSING), default=0)
    parts = [f"the first {first} were overwritten"] if first else []
    parts += [f"{gaps} between others are not in the dump"] if (gaps := lacking(entries)) else []
    return f"of what the rank issued {' and '.join(parts)}" if parts else ""


def _under_way(rows: Settled, seqs: Sequence[int]) -> str:
    """The first that had not completed, in torch's order of issue."""
    open_ = [place for place, (_, state) in enumerate(rows) if state not in (COMPLETED, UNKNOWN)]
    if not open_:
        return ""
    entry, state = rows[open_[0]]
    seq = "" if seqs[open_[0]] == MISSING else f"sequence {seqs[open_[0]]} of "
    given_up = ", torch had given it up" if state == TIMED_OUT else ""
    return (
        f"{len(open_)} of {len(rows)} operations had not completed when this was dumped, the first was {entry.op}"
        f" ({seq}group {_shown(entry.group)}; {state.replace('_', ' ')}{given_up})"
    )


def _unnumbered(rows: Settled, seqs: Sequence[int]) -> str:
    pairs = zip(rows, seqs, strict=True)
    count = sum(entry.op in POINT_TO_POINT and seq == MISSING for (entry, _), seq in pairs)
    return f"sends and receives without a number, as earlier ones are not in the dump: {count}" if count else ""


def _gloo(rows: Settled) -> str:
    if not any(entry.backend == "gloo" and entry.op == "all_reduce" for entry, _ in rows):
        return ""
    return "of Gloo the dump has reduce_scatter as all_reduce, and neither sends nor receives"


def _timed(rows: Settled) -> str:
    count = sum(entry.timed for entry, _ in rows)
    return f"durations that are not used, as no time says when they began: {count}" if count else ""
