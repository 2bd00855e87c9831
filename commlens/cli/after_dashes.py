"""Commands that take the user's launcher after `--`."""

from __future__ import annotations

import shutil
from typing import Any

import typer
from typer.core import TyperCommand

from commlens.errors import UsageError

_WORDS = "commlens.after_dashes"


class WithLauncher(TyperCommand):
    """A command with another command after `--`, so that the words of one are never taken for the other's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what stands after the first `--` for `launcher_of`."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_WORDS] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        return [*super().collect_usage_pieces(ctx), "-- LAUNCHER..."]


UP_TO_SCRIPT = "put after -- what started the run, up to its script: -- torchrun --nproc-per-node 2"
WHOLE = "put after -- the whole command that starts the job: -- torchrun --nproc-per-node 2 train.py"


def launcher_of(context: typer.Context, hint: str = UP_TO_SCRIPT) -> list[str]:
    """The words after `--`; `hint` says what is missing where there are none.

    Raises:
        UsageError: There are none, or the first is no command.
    """
    words: list[str] = context.meta[_WORDS]
    if not words:
        raise UsageError(f"no launcher given; {hint}")
    if shutil.which(words[0]) is None:
        raise UsageError(f"cannot run {words[0]!r}: there is no such command on the PATH")
    return words
