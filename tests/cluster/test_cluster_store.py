"""Objects of arrays in files: what comes out is what went in, in as few pages as possible."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from commlens.cluster import store
from commlens.errors import TraceError


@dataclass(frozen=True)
class Table:
    name: str
    values: np.ndarray
    inner: Table | None = None


def test_arrays_of_every_kind_come_back(tmp_path: Path) -> None:
    arrays = [
        np.arange(5000),
        np.arange(12).reshape(3, 4),
        np.zeros(0, np.int64),
        np.zeros((4, 0)),
        np.random.default_rng(0).normal(size=3000),
        np.arange(9000) % 2 == 0,
        np.asfortranarray(np.arange(6000).reshape(60, 100)),
        np.arange(9000)[::3],
        np.int64(7),
    ]
    store.write(tmp_path / "some", [Table("a", each) for each in arrays])
    for number, each in enumerate(arrays):
        found = store.take(tmp_path / "some", number).values
        assert found.dtype == each.dtype and found.shape == each.shape
        assert np.array_equal(found, each)


def test_one_value_repeated_takes_no_room(tmp_path: Path) -> None:
    many = np.broadcast_to(np.array(3, np.int32), (1_000_000,))
    store.write(tmp_path / "lean", [many])
    assert (tmp_path / "lean").stat().st_size < 1000
    found = store.take(tmp_path / "lean", 0)
    assert found.shape == many.shape and found.dtype == many.dtype and not any(found.strides) and found[999_999] == 3


def test_what_lies_in_a_file_already_is_not_written_again(tmp_path: Path) -> None:
    store.write(tmp_path / "first", [Table("inner", np.arange(100_000))])
    inner = store.take(tmp_path / "first", 0)
    store.write(tmp_path / "second", [Table("outer", np.arange(10), inner)])
    assert (tmp_path / "second").stat().st_size < 2000
    assert store.take(tmp_path / "second", 0).inner is inner


def test_after_a_file_was_let_go_of_it_is_written_whole(tmp_path: Path) -> None:
    store.write(tmp_path / "first", [Table("inner", np.arange(100_000))])
    inner = store.take(tmp_path / "first", 0)
    store.forget(tmp_path)
    store.write(tmp_path / "second", [Table("outer", np.arange(10), inner)])
    (tmp_path / "first").unlink()
    assert np.array_equal(store.take(tmp_path / "second", 0).inner.values, np.arange(100_000))


def test_pages_that_are_let_go_of_are_read_again(tmp_path: Path) -> None:
    store.write(tmp_path / "large", [np.arange(4_000_000)])
    found = store.take(tmp_path / "large", 0)
    before = int(found.sum())
    store.let_go_of_pages()
    assert _mapped_kb(tmp_path / "large") == 0
    assert int(found.sum()) == before
    assert _mapped_kb(tmp_path / "large") >= 8 * 4_000_000 / 1024


def test_a_watched_process_keeps_few_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MANY", 1)
    store.write(tmp_path / "large", [np.arange(4_000_000)])
    found = store.take(tmp_path / "large", 0)
    assert int(found.sum()) and _mapped_kb(tmp_path / "large")
    swept, stopped = threading.Event(), threading.Event()
    let_go = store.let_go_of_pages
    monkeypatch.setattr(store, "let_go_of_pages", lambda: (let_go(), swept.set()))
    thread = threading.Thread(target=store.keep_pages_few, args=(stopped,))
    thread.start()
    assert swept.wait(30)
    stopped.set()
    thread.join()
    assert _mapped_kb(tmp_path / "large") == 0


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="give --scratch a folder that client and workers share"):
        store.take(tmp_path / "absent", 0)


def _mapped_kb(path: Path) -> int:
    """Resident pages of a file in this process, kB."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
    return int(next(line for line in lines[place:] if line.startswith("Rss:")).split()[1])
