"""The run on disk: its format, its crash-safe writer and its reader.

The door is `open_run(path) -> Run` for those who read and `RankWriter` for
the recorder. This room imports neither torch nor pandas nor any other room;
its parts that run inside a job need numpy and pyarrow only. Names resolve on
first use, so `commlens.trace.schema` comes without pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commlens.trace.rank import Rank as Rank
    from commlens.trace.reader import Run as Run
    from commlens.trace.reader import open_run as open_run
    from commlens.trace.writer import RankWriter as RankWriter
    from commlens.trace.writer import write_run_info as write_run_info

__all__ = ["Rank", "RankWriter", "Run", "open_run", "write_run_info"]

_HOMES = {
    "Rank": "commlens.trace.rank",
    "RankWriter": "commlens.trace.writer",
    "Run": "commlens.trace.reader",
    "open_run": "commlens.trace.reader",
    "write_run_info": "commlens.trace.writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'commlens.trace' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
