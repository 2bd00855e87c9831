"""Several files read at the same time, each by a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Final, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Bytes of all files together below which starting processes costs more than it saves.
_WORTH: Final = {"fork": 1 << 20, "spawn": 24 << 20}


def workers_for(files: int, size: int) -> int:
    """How many processes should read so many files of so many bytes together; 1 for none of its own."""
    if current_process().daemon or size < _WORTH[_method()]:  # a daemon may have no processes
        return 1
    return min(os.cpu_count() or 1, files)


def each(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int, lost: Callable[[Task], Result]
) -> Iterator[Result]:
    """The results of `work` in the order of `tasks`.

    Args:
        work: a function of a module; it may raise OSError.
        tasks: its arguments.
        workers: processes; with 1 the work is done here.
        lost: what stands for the result of a task whose process was killed.

    Raises:
        OSError: `work` did.
    """
    if workers < 2:
        yield from map(work, tasks)
        return
    started: list[tuple[Any, Connection]] = []
    try:
        for place in range(workers):
            started.append(_start(work, tasks[place::workers]))
        for place, task in enumerate(tasks):
            try:
                answer = started[place % workers][1].recv()
            except EOFError:
                answer = lost(task)
            if isinstance(answer, OSError):
                raise answer
            yield answer
    finally:
        for process, _ in started:
            process.terminate()
            process.join()


def _start(work: Callable[[Task], Result], tasks: Sequence[Task]) -> tuple[Any, Connection]:
    """A process at work on tasks, and where its answers come from."""
    context: Any = get_context(_method())
    # One pipe a process: an end that another process inherited would keep it open when its own is killed.
    answers, into = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, tasks, into), daemon=True)
    with _without_main(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that libraries keep for arithmetic
        process.start()
    into.close()  # else its end would not be seen
    return process, answers


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start meanwhile do not run the caller's script, as spawned ones would to know its names."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(work: Callable[[Any], Any], tasks: Sequence[Any], answers: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its children
    for task in tasks:
        try:
            answers.send(work(task))
        except OSError as error:  # a full disk is the parent's to tell
            answers.send(error)


def _method() -> str:
    """How to start a process: a fork is quick, but takes no thread along, and what one has locked stays locked."""
    return "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"
