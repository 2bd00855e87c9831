"""Pickles of plain values come out as they went in; whatever names code, does not stop or is broken is refused."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commlens.errors import TraceError
from commlens.trace.importers.unpickle import load_plain

HERE = Path("a dump")
KEYS = st.booleans() | st.integers() | st.text()
SCALARS = KEYS | st.none() | st.floats(allow_nan=False)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner).map(tuple)
    )


VALUES = nested(SCALARS | st.binary() | st.sets(KEYS | st.binary()) | st.frozensets(KEYS))
DAMAGED, CODE, LARGE = "truncated or damaged", "names code to run", "unfolds to more"


def refused(data: bytes, why: str) -> None:
    with pytest.raises(TraceError, match=why) as caught:
        load_plain(HERE, data)
    assert str(caught.value).startswith("a dump ")
    assert "\n" not in str(caught.value)


@given(nested(SCALARS), st.integers(2, 3))
@example([{str(key): [key] for key in range(300)} for _ in range(3)], 2)
@example([10**30, -(10**700), 2**31, -(2**31), "x" * 300, "é" * 70_000, "\ud800"], 2)
def test_plain_values(value: Any, protocol: int) -> None:
    found = load_plain(HERE, pickle.dumps(value, protocol))
    assert found == value
    assert type(found) is type(value)


@given(VALUES, st.integers(4, 5))
@example([b"y" * 70_000, b"z" * 300, {b""}, frozenset({1})], 4)
def test_bytes_and_sets(value: Any, protocol: int) -> None:
    """Before protocol 4 a set, before protocol 3 bytes are made by a call."""
    found = load_plain(HERE, pickle.dumps(value, protocol))
    assert found == value
    assert type(found) is type(value)


def test_what_is_used_twice_stays_one() -> None:
    shared = [1]
    found = load_plain(HERE, pickle.dumps([shared, shared], 2))
    assert found[0] is found[1]


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_is_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    data = pickle.dumps({"entries": [Evil(f"touch '{made}'")]}, protocol)
    refused(data, CODE)
    assert not made.exists()
    pickle.loads(data)
    assert made.exists()  # so the test would have seen it


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\nX\x02\x00\x00\x00id\x85R.",  # GLOBAL, REDUCE
        b"\x8c\x02os\x94\x8c\x06system\x94\x93.",  # STACK_GLOBAL
        b"\x8c\x02osq\x000\x8c\x06systemq\x010h\x00h\x01\x93.",  # the same by way of the memo
        b"(X\x02\x00\x00\x00idios\nsystem\n.",  # INST
        b"(cos\nsystem\nX\x02\x00\x00\x00ido.",  # OBJ
        b"cos\nsystem\n)\x81.",  # NEWOBJ
        b"(o.",
        b"N)\x81.",
        b"N)}\x92.",  # NEWOBJ_EX
        b"N)R.",  # REDUCE
        b"}}b.",  # BUILD
        b"\x82\x01.",  # EXT1
        b"\x83\x01\x00.",  # EXT2
        b"\x84\x01\x00\x00\x00.",  # EXT4
        b"Pname\n.",  # PERSID
        b"NQ.",  # BINPERSID
    ],
)
def test_every_instruction_that_names_code(body: bytes) -> None:
    refused(b"\x80\x04" + body, f"{CODE}|{DAMAGED}" if b"0" in body else CODE)


def test_classes_of_the_library_are_code_too() -> None:
    for value in (OrderedDict(a=1), Path("x"), 1j, range(3)):
        refused(pickle.dumps(value, 2), CODE)


@given(VALUES.map(pickle.dumps), st.data())
def test_cut_off(data: bytes, draw: st.DataObject) -> None:
    refused(data[: draw.draw(st.integers(0, len(data) - 1))], DAMAGED)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x80")
@example(b"\x80\x06N.")  # a protocol to come
@example(b"\x80\x02.")  # an empty stack
@example(b"\x80\x02h\x00.")  # nothing put aside
@example(b"\x80\x02Ne.")  # no mark
@example(b"\x80\x02N(Ne.")  # no list
@example(b"\x80\x02}(K\x01u.")  # a key without a value
@example(b"\x80\x02}]Ns.")  # a list as a key
@example(b"\x80\x02X\xff\xff\xff\xffabc.")
@example(b"\x80\x02\x8b\xff\xff\xff\xff.")  # a negative length
@example(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.")
@example(b"\x80\x02X\x01\x00\x00\x00\xff.")
@example(b"\x80\x05\x96\x00\x00\x00\x00\x00\x00\x00\x00.")  # a bytearray
def test_garbage(data: bytes) -> None:
    try:
        load_plain(HERE, data)
    except TraceError as error:
        assert "\n" not in str(error)


def test_a_list_in_itself() -> None:
    circle: list[Any] = []
    circle.append({"a": circle})
    refused(pickle.dumps(circle), DAMAGED)


def test_a_value_that_unfolds_without_end() -> None:
    """Each list holds the one before it ten times: 10 ** 40 values in a kilobyte."""
    value: list[Any] = []
    for _ in range(40):
        value = [value] * 10
    refused(pickle.dumps(value), LARGE)


def test_a_program_without_end() -> None:
    refused(b"\x80\x02" + b"N" * 5_000_001, LARGE)


def test_an_index_far_away_takes_no_memory() -> None:
    assert load_plain(HERE, b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_tuples_within_tuples() -> None:
    """As deep as a file can ask for; as a key they would be hashed, layer by layer."""
    deep = b")" + b"\x85" * 200_000
    assert len(load_plain(HERE, b"\x80\x02" + deep + b".")) == 1
    refused(b"\x80\x02}" + deep + b"Ns.", DAMAGED)
    refused(b"\x80\x04\x8f(" + deep + b"\x90.", DAMAGED)
    refused(b"\x80\x04(" + deep + b"\x91.", DAMAGED)
