"""What a folder holds: entries by a look at their names, and everything of a run by one listing."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from commlens.trace.schema import RANK_FILE
from commlens.trace.storage.files import Files, FolderFiles, RemoteFiles
from commlens.trace.storage.packs import Pack, local_pack, open_packs
from commlens.trace.storage.places import is_remote

_PACK: Final = re.compile(r"node-\d{5,7}\.zip")


@dataclass(frozen=True)
class Entry:
    """Something in a folder."""

    path: Path
    is_folder: bool

    @property
    def is_pack(self) -> bool:
        """Whether it is called as packs are."""
        return not self.is_folder and bool(_PACK.fullmatch(self.path.name))

    @property
    def is_rank(self) -> bool:
        """Whether it is a rank's folder."""
        if not self.is_folder or not self.path.name.startswith("rank-"):
            return False
        return is_remote(self.path) or (self.path / RANK_FILE).exists()  # storage has no empty folders

    def modified_ns(self) -> int:
        """When it last changed; 0 elsewhere, where folders have no time."""
        return 0 if is_remote(self.path) else self.path.stat().st_mtime_ns


def entries_of(folder: Path) -> list[Entry]:
    """What is in a folder, by name.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such folder.
        OSError, TraceError: It may not be read.
    """
    if is_remote(folder):
        from commlens.trace.storage.remote import listed

        return [Entry(each.path, each.is_folder) for each in listed(folder)]
    with os.scandir(folder) as found:
        return sorted((Entry(folder / each.name, each.is_dir()) for each in found), key=lambda each: each.path)


@dataclass
class Held:
    """What a run's folder holds.

    Attributes:
        top: the files beside the ranks.
        folders: of the ranks, in packs or not, by name.
        problems: what cannot be used of packs, a line each.
    """

    top: Files
    folders: list[Files] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def held_in(folder: Path) -> Held:
    """Everything that a run's folder holds: listed once, and packs' directories read.

    Raises:
        OSError, TraceError: It may not be read.
    """
    held, packs = _elsewhere(folder) if is_remote(folder) else _here(folder)
    packed, held.problems = open_packs(packs)
    held.folders += [files for name in sorted(packed) for files in packed[name]]
    return held


def _here(folder: Path) -> tuple[Held, list[Pack]]:
    entries = entries_of(folder)
    held = Held(FolderFiles(folder), [FolderFiles(entry.path) for entry in entries if not entry.is_pack])
    return held, [local_pack(entry.path) for entry in entries if entry.is_pack]


def _elsewhere(folder: Path) -> tuple[Held, list[Pack]]:
    from commlens.trace.storage.remote import tree

    sizes: dict[str, dict[str, int]] = {"": {}}
    packs = []
    for each in tree(folder):
        above, _, name = each.name.rpartition("/")
        sizes.setdefault(above, {})[name] = each.size
        if not above and _PACK.fullmatch(name):
            packs.append(Pack(each.path, each.size, each.tag))
    top = sizes.pop("")
    folders: list[Files] = [RemoteFiles(folder / name, held) for name, held in sizes.items() if "/" not in name]
    return Held(RemoteFiles(folder, top), folders), packs
