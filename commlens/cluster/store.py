"""Objects of large arrays in files, read without copying: pickles whose arrays lie beside them and are mapped.

A file holds some objects. Whoever opens it maps it; an object that is taken is built around views of the mapping, so
only those pages are read that are looked at, and the kernel may drop them again. Files are written beside and renamed,
and never changed: a task that runs twice writes the same file twice.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import numpy as np

from commlens.errors import TraceError, WriteError

_ALIGN: Final = 64
_FEW: Final = 2048  # bytes
_MANY: Final = 384 << 20  # bytes of mapped pages, those of libraries among them
_LOOK_S: Final = 0.1
_MOST_OPEN: Final = 1 << 16


def write(path: Path, objects: Sequence[Any]) -> None:
    """Write objects to a new file.

    Raises:
        WriteError: there is no room, or the folder may not be written.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            index = [_append(file, each) for each in objects]  # where each object's parts lie
            place = file.tell()
            file.write(pickle.dumps(index))
            file.write(place.to_bytes(8, "little"))
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WriteError(
            f"cannot write to the scratch folder {path.parent}: {error.strerror}; make room there, or name another with"
            " --scratch"
        ) from error


_Place = tuple[int, int]  # offset and size in the file


def _append(file: io.BufferedWriter, thing: Any) -> list[_Place]:
    buffers: list[pickle.PickleBuffer] = []
    out = io.BytesIO()
    _Pickler(out, buffers).dump(thing)
    places = []
    for buffer in buffers:
        raw = buffer.raw()
        file.write(bytes(-file.tell() % _ALIGN))
        places.append((file.tell(), raw.nbytes))
        file.write(raw)
    places.append((file.tell(), out.tell()))
    file.write(out.getbuffer())
    return places


class _Pickler(pickle.Pickler):
    """Arrays out of the pickle; those of one value as that one; what was taken from a file as its place there."""

    def persistent_id(self, thing: Any) -> tuple[str, int] | None:
        """Where an object lies already."""
        return _places.get(id(thing))

    def __init__(self, out: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(out, protocol=5, buffer_callback=lambda each: _beside(each, buffers))

    def reducer_override(self, thing: Any) -> Any:
        """Arrays that repeat one value would be written out whole."""
        if type(thing) is np.ndarray and thing.size > 1 and not any(thing.strides):
            return _repeated, (thing[(0,) * thing.ndim].item(), thing.dtype.str, thing.shape)
        return NotImplemented


def _beside(buffer: pickle.PickleBuffer, buffers: list[pickle.PickleBuffer]) -> bool:
    """Whether an array stays in the pickle: of few values a mapped page would take more memory."""
    if buffer.raw().nbytes < _FEW:
        return True
    buffers.append(buffer)
    return False


def _repeated(value: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.array(value, dtype), shape)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, place: Any) -> Any:
        """An object of another file."""
        return _take(Path(place[0]), place[1])


class _File:
    """An open file of objects."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise TraceError(
                f"cannot read {path} of the scratch folder: {getattr(error, 'strerror', error)};"
                " give --scratch a folder that client and workers share"
            ) from error
        _maps.add(self.map)
        self._view = memoryview(self.map)
        place = int.from_bytes(self._view[-8:], "little")
        self._index: list[list[_Place]] = pickle.loads(self._view[place:-8])
        self._objects: dict[int, Any] = {}
        self._path = str(path)

    def take(self, number: int) -> Any:
        if number not in self._objects:
            *buffers, head = (self._view[start : start + size] for start, size in self._index[number])
            found = self._objects[number] = _Unpickler(io.BytesIO(head), buffers=buffers).load()
            if hasattr(found, "__dict__"):
                _places[id(found)] = self._path, number
        return self._objects[number]

    def close(self) -> None:
        """Its objects are written out again from now on, where they are still used."""
        for each in self._objects.values():
            _places.pop(id(each), None)


_files: OrderedDict[Path, _File] = OrderedDict()
_places: dict[int, tuple[str, int]] = {}  # of objects that open files hold, by their identity
_folders: set[Path] = set()
_maps: WeakSet[mmap.mmap] = WeakSet()  # those of files that were let go of, too, while objects in them are used
_lock = threading.RLock()


def take(path: Path, number: int) -> Any:
    """The object of this number of a file. Its arrays are read-only.

    Raises:
        TraceError: the file cannot be read.
    """
    with _lock:
        found = _take(path, number)
        while len(_files) > _room():
            _files.popitem(last=False)[1].close()
        return found


@cache
def _room() -> int:
    """Files that may be kept open: mapped ones count. Beyond that the one used longest ago is let go of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted // 2


def _take(path: Path, number: int) -> Any:
    file = _files.get(path)
    if file is None:
        _forget_what_is_gone(path.parent)
        file = _files[path] = _File(path)
    _files.move_to_end(path)
    return file.take(number)


def let_go_of_pages() -> None:
    """Pages that were read count as this process' memory until they are let go of; they stay cached for the next."""
    for each in list(_maps):
        each.madvise(mmap.MADV_DONTNEED)


def keep_pages_few(stopped: threading.Event) -> None:
    """Let go of pages whenever there are many, until stopped: a task may look at a column of thousands of ranks."""
    while not stopped.wait(_LOOK_S):
        shared = int(Path("/proc/self/statm").read_text().split()[2])
        if shared * mmap.PAGESIZE > _MANY:
            let_go_of_pages()


def _forget_what_is_gone(folder: Path) -> None:
    """Before the first file of a folder: files of folders that were removed take room as long as they are open."""
    if folder not in _folders:
        for gone in [each for each in _folders if not each.exists()]:
            forget(gone)
        _folders.add(folder)


def forget(folder: Path) -> None:
    """Close the files of a folder, once nothing of them is used any more."""
    with _lock:
        for path in [path for path in _files if path.parent == folder]:
            _files.pop(path).close()
        _folders.discard(folder)
