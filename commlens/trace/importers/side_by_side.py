"""Several files read at the same time, each by a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Bytes of all files together below which starting processes costs more than it saves.
_WORTH_A_FORK: Final = 1 << 20
_WORTH_A_START: Final = 24 << 20



def workers_for(files: int, size: int) -> int:
    """How many processes should read so many files of so many bytes together; 1 for none of its own."""
    worth = _WORTH_A_FORK if _may_fork() else _WORTH_A_START
    return min(os.cpu_count() or 1, files) if size >= worth else 1


def each(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int, lost: Callable[[Task], Result]
) -> Iterator[Result]:
    """The results of `work` in the order of `tasks`.

    Args:
        work: a function of a module, which raises nothing that should be known here.
        tasks: its arguments.
        workers: processes; with 1 the work is done here.
        lost: what stands for the result of a task whose process was killed.
    """
    if workers < 2:
        yield from map(work, tasks)
        return
    context: Any = get_context("fork" if _may_fork() else "spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    processes = []
    try:
        for place, (_, answers) in enumerate(pipes):
            own = tasks[place::workers]
            processes.append(context.Process(target=_serve, args=(work, own, answers), daemon=True))
            processes[-1].start()
            answers.close()  # else its end would not be seen
        for place, task in enumerate(tasks):
            try:
                yield pipes[place % workers][0].recv()
            except EOFError:
                yield lost(task)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(work: Callable[[Any], Any], tasks: Sequence[Any], answers: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its children
    for task in tasks:
        answers.send(work(task))


def _may_fork() -> bool:
    """A fork is quick, but takes no thread along: one that holds a lock would leave it locked for ever."""
    return sys.platform == "linux" and threading.active_count() == 1
