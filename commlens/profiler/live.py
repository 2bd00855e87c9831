"""The one live recorder of this process, and the boundary that protects the job.

Hooks stay installed for the life of the process (taking dispatcher kernels out
again is not safe while other threads use them). Those of phases look here and
step aside when there is no recorder; those of collectives look whether a log is open.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.recorder import Recorder

recorder: Recorder | None = None
leftover: Callable[[], None] | None = None  # what a recorder that gave up left to do on the thread that trains
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
        failed.disable(f"{type(error).__name__}: {one_line(error)}")
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


def untraced(function: Callable[..., Any], below: bool = True) -> Callable[..., Any]:
    """Keeps torch.compile, which runs beneath the hooks too, from compiling `function`.

    Args:
        function: a Python function.
        below: also what it calls; False where that is the job's own code.
    """
    try:
        from torch._C._dynamo import eval_frame

        skip, default = eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT
        strategy = eval_frame._FrameExecStrategy(skip, skip if below else default)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)
    except (ImportError, AttributeError, TypeError):
        pass  # a torch without it compiles a few of our frames, which is slow but right
    return function


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
