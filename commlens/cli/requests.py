"""Asking something of a job while it runs: a request is written, and what each rank says to it is waited for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.signs import end_ns
from commlens.analyzers.recent import step_to_come
from commlens.cli.places import check_here
from commlens.cli.runs import newest
from commlens.errors import CommlensError, WriteError
from commlens.trace import Run
from commlens.trace.control import Request, add_request
from commlens.trace.on_nodes import pack_entry
from commlens.trace.recent import RecentRun
from commlens.trace.windows import entries

# A rank looks each second, and what it wrote is up to a second old.
SEEN_WITHIN_S: Final = 4.0
PASSED_ON_S: Final = 2.0  # from the run's folder into those of its nodes
STEPS_BETWEEN: Final = 2
ANSWER_S: Final = 10.0
POLL_S: Final = 0.25


class Asked:
    """A request that was made.

    Args:
        paths: the run, or its parts; the newest in ./commlens-runs where there are none.
        kind: one of `control.KINDS`.
        steps: of a capture.

    Raises:
        CommlensError: there is no such run, or it takes no request now.
    """

    def __init__(self, paths: Sequence[Path] | None, kind: str, steps: int = 0) -> None:
        self.run = follow(paths)
        for folder in self.run.folders:
            check_here(folder)
        run = self.run.read()
        self.ranks = _alive(run)
        packed = pack_entry(run.info)
        if packed and os.fspath(run.path) != packed["local"]:
            raise CommlensError(
                f"{run.path} is recorded on its nodes, and this is none of them; ask on one, which asks them all:"
                f" commlens {kind} {packed['local']}"
            )
        step = step_to_come(run, SEEN_WITHIN_S + PASSED_ON_S * bool(packed), STEPS_BETWEEN)
        if step is None:
            raise CommlensError(f"{run.path}: no optimizer step has ended yet; try again when it trains")
        self.request = Request(time.time_ns(), kind, step, steps)
        for folder in [Path(packed["run"])] if packed else self.run.folders:
            try:
                add_request(folder, self.request)
            except OSError as error:
                raise WriteError(f"cannot write into {folder}: {error.strerror}; ask as the job's user") from error

    def answers(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """What each rank says, as it comes.

        Raises:
            CommlensError: some say nothing.
        """
        open_ones = set(self.ranks)
        deadline = time.monotonic() + ANSWER_S
        while open_ones and time.monotonic() < deadline:
            for number, rank in sorted(self.run.read().ranks.items()):
                answer = next(
                    (a for a in entries(rank.info, "control") if a.get("number") == self.request.number), None
                )
                if number in open_ones and answer is not None:
                    open_ones.discard(number)
                    yield number, answer
            if open_ones:
                time.sleep(POLL_S)
        if open_ones:
            raise CommlensError(
                f"{name_ranks(open_ones)} of {self.run.folders[0]} did not answer in {ANSWER_S:.0f} s: killed, or"
                " on another host with a folder of its own; next: commlens watch, or give every part of the run"
            )


def follow(paths: Sequence[Path] | None) -> RecentRun:
    """The run in `paths`, or the newest one where none is given.

    Raises:
        RunNotFoundError: there is none.
    """
    return RecentRun(list(paths) if paths else [newest()])


def _alive(run: Run) -> list[int]:
    """Ranks that may answer.

    Raises:
        CommlensError: none can.
    """
    if not run.ranks:
        raise CommlensError(f"{run.path} holds no rank yet; try again when the job has started")
    alive = [number for number, rank in run.ranks.items() if end_ns(rank.info) is None]
    if not alive:
        raise CommlensError(f"{run.path} has ended: nothing can be asked of it; next: commlens report {run.path}")
    deaf = [number for number in alive if "control" not in run.ranks[number].info]
    if deaf:
        by = run.info.get("commlens") or "an older one"
        raise CommlensError(f"{name_ranks(deaf)} of {run.path}: commlens {by} takes no requests; update it in the job")
    return alive


def interruptible(work: Callable[[], int], left: str) -> int:
    """The exit code of `work`; Ctrl-C ends the waiting, not what was asked for."""
    try:
        return work()
    except KeyboardInterrupt:
        say(f"stopped waiting; {left}")
        return 130


def say(message: str) -> None:
    """One line for the user, beside the results."""
    print(f"commlens: {message}", file=sys.stderr)  # noqa: T201
