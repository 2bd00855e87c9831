"""commlens: why a distributed training job waits on communication.

The public surface is `__all__`, resolved on first use: importing this package
inside a training process costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commlens._version import __version__ as __version__
    from commlens.analyzers import Finding as Finding
    from commlens.analyzers import Report as Report
    from commlens.analyzers import analyze as analyze
    from commlens.analyzers.comparison import compare as compare
    from commlens.analyzers.whatif.simulate import simulate as simulate
    from commlens.profiler import record as record
    from commlens.trace import open_run as open_run

__all__ = ["Finding", "Report", "__version__", "analyze", "compare", "open_run", "record", "simulate"]

_HOMES = {
    "Finding": "commlens.analyzers",
    "Report": "commlens.analyzers",
    "__version__": "commlens._version",
    "analyze": "commlens.analyzers",
    "compare": "commlens.analyzers.comparison",
    "open_run": "commlens.trace",
    "record": "commlens.profiler",
    "simulate": "commlens.analyzers.whatif.simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'commlens' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
