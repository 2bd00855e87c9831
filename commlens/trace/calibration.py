"""A calibration: how long messages take when nobody is waited for, measured and never taken from a table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from commlens.errors import NewerFormatError, TraceError, WriteError
from commlens.trace.schema import OPS, POINT_TO_POINT
from commlens.trace.storage.files import read_file

CALIBRATION_FILE: Final = "calibration.json"
CALIBRATION_VERSION: Final = 1
INTRA, INTER = "intra-node", "inter-node"
_KIND: Final = "commlens calibration"


class MadeWith(NamedTuple):
    """What a calibration was made with; "" where not known."""

    torch: str
    backend: str


@dataclass(frozen=True)
class CalibrationEntry:
    """The measured times of one operation in one group.

    Attributes:
        op: one of `schema.OPS`; a message between two ranks is "send", for its receiver too.
        ranks: global ranks, ascending; empty where not known.
        group_size: ranks in the group, 2 for messages between two.
        scope: INTRA where the ranks share a host, INTER where not, None where not known.
        bytes: message sizes as in `ops.message_bytes`, ascending.
        time_us: median time of each size without waiting for a late rank.
    """

    op: str
    ranks: tuple[int, ...]
    group_size: int
    scope: str | None
    bytes: tuple[int, ...]
    time_us: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what no measurement gives.

        Raises:
            ValueError: a value is out of its range; the message is a clause.
        """
        if self.op not in OPS:
            raise ValueError(f"it has an operation {self.op!r}")
        if self.scope not in (INTRA, INTER, None):
            raise ValueError(f"it has a scope {self.scope!r}")
        if not self.bytes or len(self.bytes) != len(self.time_us) or any(size < 1 for size in self.bytes):
            raise ValueError(f"its sizes and times of {self.op} do not go together")
        if any(after <= before for before, after in zip(self.bytes, self.bytes[1:], strict=False)):
            raise ValueError(f"its sizes of {self.op} do not ascend")
        if not all(math.isfinite(time) and time > 0 for time in self.time_us):
            raise ValueError(f"it has a time of {self.op} that is not positive")


@dataclass(frozen=True)
class Calibration:
    """What was measured, and where it comes from.

    Attributes:
        source: the command or the file that it comes from.
        made_with: torch and backend.
        entries: one per operation and group.
    """

    source: str
    made_with: MadeWith
    entries: tuple[CalibrationEntry, ...]


def calibrated_as(op: str) -> str:
    """The operation under which a calibration holds `op`: messages between two ranks are all "send"."""
    return "send" if op in POINT_TO_POINT else op


def read_calibration(path: Path) -> Calibration:
    """Reads a calibration: commlens' own file, or a log of nccl-tests.

    Raises:
        NewerFormatError: A newer commlens wrote it.
        TraceError: It cannot be read, or is no calibration.
    """
    try:
        text = read_file(path).decode("utf-8", errors="replace")
    except OSError as error:
        raise TraceError(f"cannot read the calibration {path}: {error.strerror}; check the path") from error
    if text.lstrip().startswith("{"):
        return _from_json(path, text)
    from commlens.trace.importers.nccl_tests import read_log

    return read_log(path, text)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes or replaces a calibration; readers see the old or the new one, never a part.

    Raises:
        WriteError: It cannot be written.
    """
    content = {"kind": _KIND, "format_version": CALIBRATION_VERSION, **asdict(calibration)}
    content["made_with"] = calibration.made_with._asdict()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _from_json(path: Path, text: str) -> Calibration:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise TraceError(f"{path} is truncated or damaged; {_AGAIN}") from None
    if content.get("kind") != _KIND:
        raise TraceError(f"{path} is no calibration; make one with: commlens calibrate")
    version = content.get("format_version")
    if type(version) is int and version > CALIBRATION_VERSION:
        raise NewerFormatError(
            f"{path} has format version {version}, this commlens reads up to {CALIBRATION_VERSION};"
            " update it with: pip install -U commlens"
        )
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise TraceError(f"{path} is damaged ({why}); {_AGAIN}") from None


_AGAIN: Final = "make it again with: commlens calibrate"


def _parsed(content: dict[str, Any]) -> Calibration:
    made_with = MadeWith(str(content["made_with"]["torch"]), str(content["made_with"]["backend"]))
    return Calibration(str(content["source"]), made_with, tuple(_entry(each) for each in content["entries"]))


def _entry(entry: dict[str, Any]) -> CalibrationEntry:
    return CalibrationEntry(
        op=entry["op"],
        ranks=tuple(int(rank) for rank in entry["ranks"]),
        group_size=int(entry["group_size"]),
        scope=entry["scope"],
        bytes=tuple(int(size) for size in entry["bytes"]),
        time_us=tuple(float(time) for time in entry["time_us"]),
    )
