"""Deep windows in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.windows import WindowLine
from commlens.render.words import counted

_SHOWN: Final = 3


def window_words(lines: Sequence[WindowLine]) -> list[tuple[str, str]]:
    """Name and text of the newest windows, and how many others there are."""
    before = len(lines) - _SHOWN
    more = [("windows", f"{counted(before, 'deep window')} before these")] if before > 0 else []
    return [*more, *(("window", _words(line)) for line in lines[-_SHOWN:])]


def _words(line: WindowLine) -> str:
    parts = [f"recorded on {counted(len(line.recorded_ranks), 'rank')}"] if line.recorded_ranks else []
    parts += [f"{name_ranks(ranks)} {reason}" for reason, ranks in line.not_recorded.items()]
    return f"steps {line.first_step}-{line.first_step + line.steps - 1}: {'; '.join(parts)}"
