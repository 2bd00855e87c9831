"""Which format a file has: told from its first bytes, never from its name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from commlens.trace.importers.content import Content
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.schema import IMPORTED


class Importer(Protocol):
    """What every module of a format has."""

    def recognise(self, head: bytes) -> bool:
        """Whether a file that begins so is of the format."""

    def read(self, path: Path) -> Sequence[ImportedRank]:
        """The ranks in a file."""


def importer(format: str) -> Importer:
    """The importer of a format, loaded when first asked for."""
    return cast(Importer, importlib.import_module(f"commlens.trace.importers.{format}"))


def format_of(path: Path) -> str | None:
    """The format of a file, None where no importer knows it.

    Raises:
        TraceError: It may not be read.
    """
    head = Content(path).head()
    return next((each for each in IMPORTED if head and importer(each).recognise(head)), None)
