"""Reading a file's bytes: plain or gzipped, whole or not, never more at once than asked for."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from commlens.errors import TraceError
from commlens.trace.importers import content as content_module
from commlens.trace.importers.content import Content

TEXT = b"".join(b"line %d\n" % number for number in range(5000))
NOISE = random.Random(1).randbytes(700_000)  # more than two reads long, gzipped too


def content(folder: Path, data: bytes) -> Content:
    path = folder / "file"
    path.write_bytes(data)
    return Content(path)


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_pieces_are_no_longer_than_asked_for(tmp_path: Path, size: int, packed: bool) -> None:
    text = TEXT[:1000]
    file = content(tmp_path, gzip.compress(text) if packed else text)
    pieces = list(file.chunks(size))
    assert b"".join(pieces) == text
    assert file.whole
    assert max(map(len, pieces)) <= size


def test_what_is_gzipped_is_told_from_the_bytes(tmp_path: Path) -> None:
    for data in (b"", b"\x1f", b"{", TEXT):
        assert content(tmp_path, data).all(1 << 20) == data


def test_members_one_after_another(tmp_path: Path) -> None:
    """As concatenated files and parallel compressors have them: short ones, and longer than one read."""
    parts = [TEXT, b"", NOISE, b"end", NOISE[:300_000]]
    file = content(tmp_path, b"".join(map(gzip.compress, parts)))
    assert b"".join(file.chunks(1 << 16)) == b"".join(parts)
    assert file.whole


def test_members_that_end_anywhere_in_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(TEXT[:50]) + bytes(3) + gzip.compress(b"") + gzip.compress(b"more") + bytes(40)
    for length in range(1, len(data) + 1):
        monkeypatch.setattr(content_module, "_READ", length)
        file = content(tmp_path, data)
        assert b"".join(file.chunks(8)) == TEXT[:50] + b"more"
        assert file.whole


@pytest.mark.parametrize("zeros", [1, 511, 600_000])
def test_padding_with_zeros(tmp_path: Path, zeros: int) -> None:
    for rest in (b"", b"more"):
        file = content(tmp_path, gzip.compress(TEXT) + bytes(zeros) + (gzip.compress(rest) if rest else b""))
        assert b"".join(file.chunks()) == TEXT + rest
        assert file.whole


def test_garbage_after_the_end(tmp_path: Path) -> None:
    file = content(tmp_path, gzip.compress(TEXT) + b"garbage")
    assert b"".join(file.chunks()) == TEXT
    assert not file.whole


def test_cut_off_anywhere(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT[:2000])
    for end in range(2, len(packed)):
        file = content(tmp_path, packed[:end])
        assert TEXT[:2000].startswith(b"".join(file.chunks()))
        assert not file.whole


def test_cut_off_in_the_second_member(tmp_path: Path) -> None:
    file = content(tmp_path, gzip.compress(TEXT) + gzip.compress(b"more")[:-4])
    assert b"".join(file.chunks()) == TEXT + b"more"
    assert not file.whole


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(NOISE))
    packed[350_000:350_100] = bytes(100)
    file = content(tmp_path, bytes(packed))
    b"".join(file.chunks())
    assert not file.whole


def test_the_first_bytes(tmp_path: Path) -> None:
    for data in (TEXT, gzip.compress(TEXT)):
        assert content(tmp_path, data).head(10) == b"line 0\nlin"
        assert content(tmp_path, data).head(1 << 20) == TEXT


def test_zeros_that_fill_any_memory(tmp_path: Path) -> None:
    """A thousandfold when unpacked: pieces stay small, and a limit holds."""
    file = content(tmp_path, gzip.compress(bytes(64 << 20)))
    assert {len(piece) for piece in file.chunks(1 << 20)} == {1 << 20}
    with pytest.raises(TraceError, match=r"file holds more than 2 MiB, no file of its kind does; leave it out"):
        file.all(2 << 20)


def test_all_up_to_a_limit(tmp_path: Path) -> None:
    assert content(tmp_path, TEXT).all(len(TEXT)) == TEXT
    with pytest.raises(TraceError, match="holds more than"):
        content(tmp_path, TEXT).all(len(TEXT) - 1)


def test_what_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"cannot read .*absent: No such file or directory"):
        Content(tmp_path / "absent").head()
    with pytest.raises(TraceError, match="Is a directory"):
        Content(tmp_path).head()
