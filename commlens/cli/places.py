"""What is typed for a path: of this machine, or an address such as s3://bucket/run."""

from __future__ import annotations

import os
from pathlib import Path

from commlens.errors import UsageError


def anywhere(given: str | os.PathLike[str]) -> Path:
    """A path of this machine, or where fsspec reaches.

    Raises:
        UsageError: what is needed for it is not installed, or it holds what is secret.
    """
    if "://" not in str(given):
        return Path(given)
    from commlens.trace.storage.places import place

    return place(given)


def here(given: str | os.PathLike[str]) -> Path:
    """A path of this machine.

    Raises:
        UsageError: it is another place's address.
    """
    path = anywhere(given)
    if isinstance(path, Path):
        return path
    raise UsageError(f"a job writes to folders that its hosts see, not to {path}; record, then copy the run there")


def check_here(path: Path) -> None:
    """Refuse what is on other storage, where nothing is written while others read it.

    Raises:
        UsageError: it is.
    """
    if not isinstance(path, Path):
        raise UsageError(f"a running job looks for requests in its own folder, not in {path}; give that folder")
