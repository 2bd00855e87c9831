"""Dumps of PyTorch's Flight Recorder, pickled or as JSON: what each rank issued, and what had not ended.

A dump says when a collective was issued and nothing of when the device ran it: `time_discovered_*` is when the
watchdog looked (or the dump was made), `duration_ms` has no beginning. So rows are `enqueue_only` and their end
is null, that of completed collectives as well: any number there would be taken for a time by someone.

How far each had got is exact, and is what one reads a dump for. It stands in rank.json:

    "flight_recorder": {"version": "2.10", "states": {"scheduled": [7, 8], "started": [6]},
                        "timeout_ms": 600000, "written_ns": 1724779900000000000}

`states` lists the events of the table that had not completed, by state (see `flight_recorder_entries`); an event
that is in no list had completed. `timeout_ms` is that of the first of them, null where there is none. No dump says
when it was made: not after `written_ns`, the time of its file, which a copy makes later.
`seq` is torch's, as its error messages print it: it begins with 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.flight_recorder_entries import COMPLETED, Entry, read_entry, settle
from commlens.trace.importers.flight_recorder_groups import read_groups, world_size
from commlens.trace.importers.flight_recorder_notes import lacking, notes
from commlens.trace.importers.flight_recorder_rows import (
    columns,
    group_names,
    own_rank,
    sequence,
    states,
    whole_groups,
)
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.importers.unpickle import load_plain
from commlens.trace.schema import MISSING

_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]")
_TOKEN: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"?(\s*:)?|[{}\[\]]', re.DOTALL)
_MOST_BYTES: Final = 1 << 26  # of torch's, which keeps 2000 entries, under one MiB
_MOST_GROUPS: Final = 32_767


def recognise(head: bytes) -> bool:
    """Whether a file that begins so is a dump, or a pickle."""
    if _PICKLE.match(head):
        return True
    keys = _keys(head) if head.lstrip()[:1] == b"{" else frozenset()
    return bool(keys & {b"entries", b"pg_config"}) and not keys & {b"traceEvents", b"kind"}


def _keys(head: bytes) -> frozenset[bytes]:
    """Keys of the outermost object, as far as it goes."""
    depth, keys = 0, set()
    for token in _TOKEN.finditer(head):
        if token[0] in b"{[":
            depth += 1
        elif token[0] in b"}]":
            depth -= 1
        elif depth == 1 and token[2]:
            keys.add(token[1])
    return frozenset(keys)


def read(path: Path) -> list[ImportedRank]:
    """The rank of a dump.

    Raises:
        TraceError: It is no dump, is damaged, names code, or may not be read.
    """
    dump, raw = _load(path)
    entries = [entry for place, each in enumerate(raw) if (entry := read_entry(each, place))]
    groups, names = read_groups(dump.get("pg_config")), group_names(entries)
    if len(names) > _MOST_GROUPS:
        raise TraceError(f"{path} has entries of {len(names)} process groups, which no job has; dump it again")
    again = [groups[name] | {"name": alias} for (name, _), alias in names.items() if alias != name and name in groups]
    members = {name: group["ranks"] for name, group in groups.items()}
    settled = settle(entries, gaps=lacking(entries) > 0)
    rows = [(entry, state) for entry, state in settled if entry.op]
    issued = [entry for entry, _ in rows]
    seqs = sequence(issued, whole_groups(entries))
    open_ = [entry.timeout_ms for entry, state in rows if state != COMPLETED and entry.timeout_ms != MISSING]
    told = {
        "version": version if isinstance(version := dump.get("version"), str) else "",
        "states": states(rows),
        "timeout_ms": open_[0] if open_ else None,
        "written_ns": path.stat().st_mtime_ns,
    }
    return [
        ImportedRank(
            source=path,
            rank=own_rank(issued, members),
            world_size=world_size(groups.values()),
            info={"groups": [*groups.values(), *again], "flight_recorder": told},
            run=_run(dump, issued),
            tables={"collectives": columns(issued, seqs, names, members)} if rows else {},
            notes=notes(dump, len(raw), entries, settled, seqs),
        )
    ]


def _run(dump: Mapping[str, Any], issued: Sequence[Entry]) -> dict[str, Any]:
    """The backend where there is one, and the version of its library."""
    backends = {entry.backend for entry in issued} - {""}
    backend = backends.pop() if len(backends) == 1 else None
    version = dump.get("comm_lib_version") or dump.get("nccl_version")
    return {"backend": backend} | ({"nccl": version} if isinstance(version, str) else {})


def _load(path: Path) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """The dump, and its entries."""
    content = Content(path).all(_MOST_BYTES)
    dump = load_plain(path, content) if _PICKLE.match(content) else _from_json(path, content)
    if isinstance(dump, list):  # torch 2.2 and before
        dump = {"entries": dump}
    entries = dump.get("entries", []) if isinstance(dump, dict) else None
    if not isinstance(entries, list | tuple) or not {"entries", "pg_config"} & dump.keys():
        raise TraceError(f"{path} is no dump of the Flight Recorder: it has no list of entries; leave it out")
    return dump, entries


def _from_json(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise TraceError(f"{path} is truncated or damaged JSON; dump it again") from None
