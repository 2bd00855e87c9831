"""How the process ends, as far as that can be seen from inside while it does.

CPython prints an exception that nobody caught, notes it in `sys`, and runs what was registered with atexit. Of a
`SystemExit` in the main process nothing is left by then, nor is its code: that reads as an exit like any other.
"""

from __future__ import annotations

import multiprocessing.process
import os
import sys
import traceback
from types import TracebackType

LONGEST = 300  # characters of an error
_BOTTOM = ("__main__", "runpy")  # modules in which a script, or `python -m`, begins


def seen() -> dict[str, str]:
    """At exit: `{"how": "exit"}`, or `{"how": "exception", "error": "ValueError: one line"}`."""
    error = _ended_by()
    return {"how": "exit"} if error is None else {"how": "exception", "error": named(error)}


def named(error: BaseException) -> str:
    """Type and message on one line, `LONGEST` characters at most; the job's own class may fail to say anything."""
    told = traceback.TracebackException(type(error), error, None, lookup_lines=False)
    said = " ".join(str(told).split())
    return (f"{type(error).__name__}: {said}" if said else type(error).__name__)[:LONGEST]


def _ended_by() -> BaseException | None:
    if multiprocessing.process.parent_process() is not None:
        return _leaving()  # what it notes in `sys` is none of its own
    if sys.flags.interactive or hasattr(sys, "ps1") or os.environ.get("PYTHONINSPECT"):
        return None  # a prompt printed the last exception, and went on
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if not isinstance(error, BaseException) or not _left_the_script(error.__traceback__):
        return None
    return error


def _leaving() -> BaseException | None:
    """In a child of multiprocessing, which runs this while what ends it is on its way up."""
    error = sys.exc_info()[1]
    if not isinstance(error, SystemExit):
        return error
    # torch's spawn catches what the function raised, passes it on to the parent, and leaves with 1.
    return (error.__context__ or error) if error.code else None


def _left_the_script(ended: TracebackType | None) -> bool:
    """Whether nothing was left to catch it: debuggers, test runners and compiled callbacks print some and go on."""
    if ended is None:
        return False
    frame = ended.tb_frame
    return frame.f_back is None and frame.f_globals.get("__name__") in _BOTTOM
