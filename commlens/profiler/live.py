"""The one live recorder of this process, and the boundary that protects the job.

Hooks stay installed for the life of the process (taking dispatcher kernels out
again is not safe while other threads use them); they all look here and step
aside when there is no recorder.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.recorder import Recorder

recorder: Recorder | None = None
_warned: set[str] = set()


def guarded(action: Callable[..., Any], *args: Any) -> None:
    """Runs `action`; whatever it raises ends the recording, never the job."""
    try:
        action(*args)
    except Exception as error:  # noqa: BLE001 - the boundary inside the job
        give_up(error)


def give_up(error: BaseException) -> None:
    """Stops recording after `error`, with one line."""
    global recorder
    failed, recorder = recorder, None
    if failed is not None:
        failed.disable()
    warn(f"recording stopped ({type(error).__name__}: {one_line(error)}); the job goes on without it")


def warn(message: str) -> None:
    """One line on stderr, once per message; a closed or replaced stderr is not an error."""
    if message in _warned:
        return
    _warned.add(message)
    rank = os.environ.get("RANK")
    who = f"commlens: rank {rank}" if rank is not None else "commlens"
    try:
        sys.stderr.write(f"{who}: {message}\n")
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - the job may have put any object there
        return


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
