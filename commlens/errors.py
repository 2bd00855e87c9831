"""Errors a user can cause, each with one line that says what, where and what next.

CommlensError                exit code 1
├── TraceError               a run cannot be read
│   ├── RunNotFoundError     no run at the path (exit code 2)
│   ├── DamagedRunError      nothing readable is left of it
│   └── NewerFormatError     written by a newer commlens
├── WriteError               a result cannot be written
├── BuildError               a native part cannot be compiled
├── ClusterError             workers cannot be reached, or do not fit
└── UsageError               the request makes no sense (exit code 2)
"""

from __future__ import annotations


class CommlensError(Exception):
    """Base of every error commlens raises on purpose.

    try:
        run = commlens.open_run("out")
    except commlens.errors.CommlensError as error:
        print(error)
    """

    exit_code = 1


class TraceError(CommlensError):
    """A run cannot be read."""


class RunNotFoundError(TraceError):
    """There is no run at the path given."""

    exit_code = 2


class DamagedRunError(TraceError):
    """The run is there, but nothing readable is left of it."""


class NewerFormatError(TraceError):
    """The run was written by a newer commlens."""


class WriteError(CommlensError):
    """A result cannot be written where it was asked for."""


class BuildError(CommlensError):
    """A native part cannot be compiled here."""


class ClusterError(CommlensError):
    """The workers of a cluster cannot be reached, or do not fit this process."""


class UsageError(CommlensError):
    """The request makes no sense."""

    exit_code = 2
