"""Damage for `fuzz_importers.py`: of bytes, and of what a format is made of: tokens, opcodes, pages, values, words."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import pickle
import pickletools
import random
import re
import sqlite3
import struct
from collections.abc import Callable
from typing import Any

LARGEST = 1 << 19  # bytes of a mutated file before it is compressed
GZIPPED = 0.25  # share of files that are compressed
BOMBS = 0.004  # share of files with a gzip member that unfolds to `BOMB` bytes
BOMB = 24 << 20
DEEP = (3, 70, 1500, 50_000)

Edit = tuple[int, int, bytes]  # from, to, what stands there instead


def mutated(format: str, seed: bytes, rng: random.Random) -> bytes:
    """A damaged file: some edits of what the format is made of, some of bytes, perhaps gzipped and damaged again."""
    data = seed
    if rng.random() < 0.7:
        data = _STRUCTURED[format](data, rng)
    if data is seed or rng.random() < 0.3:
        data = _some_bytes(data, rng)
    return _gzipped(data, rng) if rng.random() < GZIPPED else data


# ---- bytes

_GARBAGE = (
    b"\0", b"\xff", b"\n", b'"', b"\\", b"{", b"[", b"}]", b"]}", b"},{", b"}, {", b',"', b'"traceEvents": [',
    b'{"a":', b"\x1f\x8b\x08", b"SQLite format 3\0", b"\x80\x04", b"NaN", b"-Infinity", b"1e999", b"\xed\xa0\x80",
    b"\xc2\xb2", b"\xef\xbb\xbf", b"null", b"/*", b"\xe2\x80\xa8", b"9" * 5000,
)  # fmt: skip


def _some_bytes(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data = rng.choice(_BYTES)(data, rng)[:LARGEST]
    return data


def _flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 40)) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    return data[place:] if rng.random() < 0.2 else data[:place]


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 4, 30, 400, 5000)))


def _deleted(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def _repeated(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 30)) + data[end:]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    (start, end), (other, last) = sorted((_block(data, rng), _block(data, rng)))
    end = min(end, other)
    return data[:start] + data[other:last] + data[end:other] + data[start:end] + data[last:]


def _garbage(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    known = rng.choice(_GARBAGE) * rng.choice((1, 1, 1, 20))
    noise = known if rng.random() < 0.6 else rng.randbytes(rng.choice((1, 8, 300)))
    return data[:place] + noise + data[place + (len(noise) if rng.random() < 0.3 else 0) :]


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flipped, _cut, _deleted, _repeated, _swapped, _garbage)


# ---- gzip


def _gzipped(data: bytes, rng: random.Random) -> bytes:
    packed = gzip.compress(data, 1)
    if rng.random() < 0.3:  # several members
        half = rng.randint(0, len(data))
        packed = gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1)
    if rng.random() < BOMBS / GZIPPED:
        packed = (packed + _bomb(rng.randrange(4))) if rng.random() < 0.5 else (_bomb(rng.randrange(4)) + packed)
    return _some_bytes(packed, rng) if rng.random() < 0.4 else packed


@functools.cache
def _bomb(kind: int) -> bytes:
    content = (b" ", b"9", b"[", b'{"traceEvents": [{"ph": "X", "a": "')[kind]
    return gzip.compress(content + b"x" * BOMB if kind == 3 else content * BOMB, 6)


def _edited(data: bytes, edits: list[Edit]) -> bytes:
    """All edits at once; of those that overlap the first."""
    parts, at = [], 0
    for start, end, text in sorted(edits):
        if start >= at:
            parts += [data[at:start], text]
            at = end
    return b"".join([*parts, data[at:]])[:LARGEST]


# ---- values, and JSON of them

_NUMBERS: tuple[Any, ...] = (
    0, -0.0, -1, 1, 2, 255, 4096, 32767, 32768, 65536, 999_999, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1,
    2**63, -(2**31) - 1, -(2**63), -(2**63) - 1, 2**64, 10**19, 10**300, 10**400, 0.1, 1e15, 1.7e18, 1e300, -1e300,
    5e-324, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
_WORDS = (
    "", " ", "0", "-1", "²", "[²]", "[0, ²]", "٣", "9" * 5000, "[0, " + "9" * 5000 + "]", "[0, 1]", "[0, 1, 1]",
    "nan", "a\nb", "\r\n", "\0", "\u2028", "\x1b[31m", "[/bold]", "[red]", "é" * 40, "\ud800", "\udfff", "A" * 3000,
    "A" * 100_000, "../../x", "%s{}%n", "1e400", "true", "ncclDevKernel_AllReduce", "nccl:all_reduce",
    "gloo:all_reduce", "X", "kernel", "ProfilerStep#1", "completed", "send 0->1", "recv 9<-999999999", "0" * 40,
    "default_pg", "torch.float32", "c10::Half",
)  # fmt: skip


def _value(rng: random.Random) -> Any:
    """Anything but what belongs there."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(_NUMBERS)
    if kind < 0.75:
        return rng.choice(_WORDS)
    if kind < 0.85:
        return rng.choice((None, True, False))
    if kind < 0.97:
        plain = ([], {}, [None], [[]], {"": 0}, [0, 1], ["a", "b"], [-1], [1.5], [10**400], {"name": []}, [{}], [[[]]])
        return rng.choice(plain)
    return [rng.choice(_NUMBERS[:20])] * rng.choice((10, 1000, 50_000))


def _json(value: Any) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**300:
        return b"1" + b"0" * 5000
    with contextlib.suppress(ValueError):
        return json.dumps(value, ensure_ascii=value != "é" * 40).encode()
    return b"[1" + b"0" * 4500 + b"]"


def _json_value(rng: random.Random) -> bytes:
    if rng.random() < 0.04:
        depth = rng.choice(DEEP)
        left, right = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"name":', b"}]")))
        return left * depth + b"1" + right * (depth if rng.random() < 0.7 else depth // 2)
    return _json(_value(rng))


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"(\s*:)?|-?\d[\d.eE+-]*|true|false|null|([{}\[\],])', re.DOTALL)
Token = tuple[int, int, bytes]


@functools.lru_cache(maxsize=64)
def _tokens(data: bytes) -> tuple[dict[bytes, list[Token]], list[Token], list[Token]]:
    """Values by their key, keys, and punctuation: (from, to, key)."""
    values: dict[bytes, list[Token]] = {}
    keys: list[Token] = []
    marks: list[Token] = []
    key = b'""'
    for found in _TOKEN.finditer(data):
        token = (found.start(), found.end(), key)
        if found[1]:
            key = found[0].rstrip(b": \n\t")
            keys.append((found.start(), found.end(), key))
        elif found[2]:
            marks.append(token)
        else:
            values.setdefault(key, []).append(token)
    return values, keys, marks


def _json_edits(data: bytes, rng: random.Random) -> bytes:
    values, keys, marks = _tokens(data)
    if not values or not keys:
        return data
    edits: list[Edit] = []
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        edits += _json_edit(data, values, keys, marks, rng)
    return _edited(data, edits)


def _json_edit(
    data: bytes, values: dict[bytes, list[Token]], keys: list[Token], marks: list[Token], rng: random.Random
) -> list[Edit]:
    own = values[rng.choice(list(values))]  # keys that are rare are as likely as others
    start, end, _ = rng.choice(own)
    kind = rng.random()
    if kind < 0.45:
        return [(start, end, _json_value(rng))]
    if kind < 0.6:  # everywhere
        hostile = _json_value(rng)[:2000]
        return [(first, last, hostile) for first, last, _ in own if rng.random() < 0.9]
    if kind < 0.68:
        return [(start, end, _near(data[start:end], rng))]
    if kind < 0.76:
        first, _, twice = rng.choice(keys)
        return [(first, first, twice + b": " + _json_value(rng) + b", ")]
    if kind < 0.84:
        first, last, _ = rng.choice(keys)
        return [(first, last, rng.choice(keys)[2] + b":")]
    if kind < 0.92:
        first, last, _ = rng.choice(rng.choice(list(values.values())))
        return [(start, end, data[first:last]), (first, last, data[start:end])]
    first, last, _ = rng.choice(marks or own)
    return [(first, last, rng.choice((b"", b"{", b"}", b"[", b"]", b",", b":", b",,", b"]]", b"}}")))]


def _near(token: bytes, rng: random.Random) -> bytes:
    """A number not far from the one that is there, else a part of the text."""
    try:
        number = json.loads(token)
    except ValueError:
        return token
    if isinstance(number, bool) or not isinstance(number, int | float):
        return token[: rng.randint(0, len(token))] + b'"' if token[:1] == b'"' else token
    factor, shift = rng.choice((-1, 1, 10, 1000, 10**6, 10**9, 0.001)), rng.choice((0, 1, -1, 0.5))
    return _json(number * factor + shift)


# ---- pickles

_OPCODES = (
    b"\x8b" + struct.pack("<i", -5), b"\x8a\xff" + b"\x7f" * 255,
    b"\x8b" + struct.pack("<i", 90_000) + b"\x7f" * 90_000, b"\x8b" + struct.pack("<i", 2**31 - 1),
    b"\x8d" + struct.pack("<Q", 2**63), b"X" + struct.pack("<I", 2**32 - 1), b"\x95" + struct.pack("<Q", 2**64 - 1),
    b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"R", b"b", b"o", b"\x81", b"\x92", b"\x82\x01", b"Pid\n",
    b"Q", b"ios\nsystem\n", b"(", b"(" * 1000, b")", b"]", b"}", b"\x8f", b"(\x91", b"t", b"l", b"\x85", b"\x86",
    b"\x87", b"a", b"e", b"s", b"u", b"\x90", b"0", b"1", b"2", b".", b"N", b"\x88", b"\x89", b"K\xff",
    b"J" + struct.pack("<i", -1), b"G" + struct.pack(">d", float("nan")), b"G" + struct.pack(">d", float("inf")),
    b"q\0", b"h\0", b"j" + struct.pack("<I", 2**32 - 1), b"r" + struct.pack("<I", 2**32 - 1), b"\x94", b"\x80\x09",
    b"I99\n", b"L9L\n", b"F1\n", b"S'a'\n", b"Va\n", b"p0\n", b"g0\n", b"d", b"X\x03\0\0\0\xed\xa0\x80",
    b"X\x02\0\0\0\xff\xfe", b"\x8c\0", b"C\x01a", b"\x96" + struct.pack("<Q", 3) + b"abc", b"\x97", b"\x98",
    b")" + b"\x85" * 50_000, b"]" + b"\x85" * 1500, b"]q\0" + b"h\0h\0\x86q\0" * 60,
    b"]q\0" + b"(h\0h\0h\0h\0tq\0" * 12, b"]q\0h\0a", b"}q\0(K\x01h\0u", b"\xff",
)  # fmt: skip


@functools.lru_cache(maxsize=64)
def _opcodes(data: bytes) -> list[tuple[int, int]]:
    """Where each instruction begins and ends."""
    places = [place or 0 for _, _, place in pickletools.genops(data)]
    return list(zip(places, [*places[1:], len(data)], strict=True))


def _pickle_edits(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        return _other_object(data, rng)
    edits: list[Edit] = []
    spans = _opcodes(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start, end = rng.choice(spans)
        other, last = rng.choice(spans)
        own, hostile = data[start:end], rng.choice(_OPCODES)
        edits += rng.choice(
            (
                [(start, end, b"")],
                [(start, end, hostile)],
                [(start, start, hostile)],
                [(end, end, own * rng.choice((1, 1, 3, 500)))],
                [(start, end, data[other:last])],
                [(start, end, data[other:last]), (other, last, own)],
            )
        )
    return _edited(data, edits)


def _other_object(data: bytes, rng: random.Random) -> bytes:
    """The value with some of its parts replaced, pickled again."""
    value = _reset(pickle.loads(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        _replace(value, rng)
    out = io.BytesIO()
    with contextlib.suppress(OverflowError, UnicodeError):
        pickle.Pickler(out, rng.choice((2, 3, 4, 5))).dump(value)
        return out.getvalue()
    return data


def _reset(value: Any) -> Any:
    """A copy of lists and dicts, so that every part can be replaced."""
    if isinstance(value, dict):
        return {key: _reset(each) for key, each in value.items()}
    return [_reset(each) for each in value] if isinstance(value, list | tuple) else value


def _replace(value: Any, rng: random.Random) -> None:
    while isinstance(value, dict | list) and value:
        key: Any = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        inner = value[key]
        if rng.random() < 0.15 or not (isinstance(inner, dict | list) and inner):
            value[key] = _object(rng)
            if isinstance(value, dict) and rng.random() < 0.1:
                value[rng.choice((1, None, b"x", "entries", "\ud800", 1.5))] = value.pop(key)
            return
        value = inner


def _object(rng: random.Random) -> Any:
    if rng.random() < 0.1:
        deep: Any = 1
        for _ in range(rng.choice((3, 70, 150))):
            deep = rng.choice(((deep,), [deep], {"a": deep}))
        return deep
    plain = (b"", b"x" * 1000, set(), {1, "a"}, frozenset(), (), (1, 2), ((0,),), 10 ** rng.randint(0, 6000), {b"x": 1})
    return rng.choice(plain) if rng.random() < 0.2 else _value(rng)


# ---- SQLite


def _export_edits(data: bytes, rng: random.Random) -> bytes:
    values = rng.random() < 0.7
    if values:
        data = _other_values(data, rng)
    if not values or rng.random() < 0.2:
        for _ in range(rng.choice((1, 1, 2, 5))):
            data = _other_page(data, rng)
    return data


_CELLS: tuple[Any, ...] = (
    0, -1, 1, 59, 2**15, 2**31, 2**32, 2**53, 2**61, 2**62, 2**63 - 1, -(2**63), 1.5, 1e300, float("inf"), None, "",
    "x", "12", b"", b"\xff\xfe", "\0", "a\nb", "9" * 5000, "nccl" * 20_000, "ncclGroupStart", "ncclGroupEnd",
    "step 1", "[/b]",
)  # fmt: skip
_SCHEMA = (
    "DROP TABLE {t}",
    "ALTER TABLE {t} RENAME TO other",
    "ALTER TABLE {t} DROP COLUMN {c}",
    "ALTER TABLE {t} RENAME COLUMN {c} TO {d}_",
    "ALTER TABLE {t} RENAME COLUMN {c} TO 'a\"b'",
    "ALTER TABLE {t} RENAME COLUMN {c} TO ''",
    "ALTER TABLE {t} RENAME TO 'a\"; --'",
    "ALTER TABLE {t} ADD COLUMN more AS (randomblob(1000000)) VIRTUAL",
    "INSERT INTO {t} SELECT * FROM {t}",
    "DELETE FROM {t}",
    "CREATE INDEX i ON {t} ({c})",
    "CREATE VIEW v AS SELECT * FROM {t}",
    "CREATE TRIGGER r AFTER INSERT ON {t} BEGIN DELETE FROM {t}; END",
    "DROP TABLE {t}; CREATE VIEW {t} AS WITH RECURSIVE n({c}) AS (SELECT 1 UNION ALL SELECT 2 FROM n) SELECT * FROM n",
    "DROP TABLE {t}; CREATE TABLE {t} ({c}, {d})",
    "DROP TABLE {t}; CREATE TABLE {t} ({c} PRIMARY KEY, {d}) WITHOUT ROWID",
    "DROP TABLE {t}; CREATE TABLE {t} (x AS (1), {c} AS (x + 1), {d})",
    "DROP TABLE {t}; CREATE VIRTUAL TABLE {t} USING fts5({c})",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET rootpage = rootpage + 1 WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET rootpage = 99999999 WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = 'x' WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = NULL WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET name = 'a' || char(10) || 'b' WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET name = x'ff00' WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET type = 'view' WHERE name = '{t}'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET name = 'StringIds' WHERE name = '{t}'",
)


def _other_values(data: bytes, rng: random.Random) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            with contextlib.suppress(sqlite3.Error):
                _change(db, rng)
        with contextlib.suppress(sqlite3.Error):
            db.commit()
            return db.serialize() or data
    return data


def _change(db: sqlite3.Connection, rng: random.Random) -> None:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = rng.choice(tables or ["none"])
    columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
    column, other = rng.choice(columns or ["none"]), rng.choice(columns or ["none"])
    if rng.random() < 0.35:
        db.executescript(rng.choice(_SCHEMA).format(t=table, c=column, d=other))
        return
    where = rng.choice(("TRUE", "rowid % 2", "rowid % 11 = 3", "rowid = (SELECT min(rowid) FROM {t})")).format(t=table)
    value = rng.choice(
        ("?", "?", f"{column} * -1", f"{column} + 1", f"{other}", f"{column} * 1000000", f"-({column} + ?)")
    )
    cells = (rng.choice(_CELLS),) if "?" in value else ()
    db.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}", cells)


def _other_page(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[16:18], "big") or 1024
    size = size if 512 <= size <= 65536 else 1024
    found, count = bytearray(data), max(1, len(data) // size)
    page, other = rng.randrange(count), rng.randrange(count)
    start, kind = page * size, rng.random()
    if kind < 0.2:
        found[start : start + size] = data[other * size : (other + 1) * size]
    elif kind < 0.3:
        found[start : start + size] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    elif kind < 0.5:  # the head of the page: its type, counts, the rightmost child
        at = (100 if page == 0 else start) + rng.randrange(12)
        found[at : at + 1] = bytes([rng.choice((0, 1, 2, 5, 10, 13, 127, 255))])
    elif kind < 0.75:  # a number that leads to a page or a place in one
        at = start + rng.randrange(8, 120)
        wide = rng.choice((2, 4))
        found[at : at + wide] = rng.choice((page + 1, other + 1, count, 0, 2 ** (8 * wide) - 1)).to_bytes(wide, "big")
    elif kind < 0.9:  # the head of the file
        at = rng.choice((16, 18, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 96))
        found[at : at + 4] = rng.choice((0, 1, 2, 3, 512, 65536, 2**31, 2**32 - 1)).to_bytes(4, "big")
    else:
        del found[start:]
    return bytes(found)


# ---- logs of words

_LOG_WORDS = (
    b"\xc2\xb2", b"\xd9\xa3", b"9" * 5000, b"nan", b"inf", b"-inf", b"-1", b"0", b"1e400", b"1e-400", b"N/A", b"",
    b"#", b"size", b"count", b"time", b"algbw", b"busbw", b"cputime", b"alltoall_perf", b"reduce_scatter_perf",
    b"hypercube_perf", b"\n", b"\r", b"\x1b[1m", b"[1,0]<stdout>:", b"nThread 0 nGpus 0",
    b"nThread 99999999999 nGpus " + b"9" * 5000, b"nccl-library=0", b"nccl-library=" + b"9" * 5000, b"1_0",
    b"2147483648", b"99999999999999999999", b"float", b"\xe2\x80\xa8",
)  # fmt: skip


def _word_edits(data: bytes, rng: random.Random) -> bytes:
    if data[:1] == b"{":
        return _json_edits(data, rng)
    words = [(found.start(), found.end()) for found in re.finditer(rb"\S+", data)]
    lines = data.splitlines(keepends=True)
    if not words or rng.random() < 0.2:
        chosen = [rng.choice(lines) for _ in lines[: rng.choice((5, 40, 400))]] if lines else []
        return b"".join(chosen)
    edits: list[Edit] = []
    for _ in range(rng.choice((1, 2, 5, 40))):
        start, end = rng.choice(words)
        other, last = rng.choice(words)
        edits.append((start, end, rng.choice(_LOG_WORDS) if rng.random() < 0.8 else data[other:last]))
    return _edited(data, edits)


_STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "kineto": _json_edits,
    "flight_recorder_json": _json_edits,
    "flight_recorder_pickle": _pickle_edits,
    "nccl_inspector": _json_edits,
    "nsys": _export_edits,
    "nccl_tests": _word_edits,
}
