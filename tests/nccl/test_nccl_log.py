"""Reading the plugin's file: cut off anywhere, damaged anywhere, of others; and the device's clock on the host's."""

import functools
import tempfile
from pathlib import Path

import driven
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commlens.errors import DamagedRunError, NewerFormatError, TraceError
from commlens.trace.nccl import layout
from commlens.trace.nccl.device_clock import MOST_DRIFT, Evidence, on_host, resolution
from commlens.trace.nccl.log import parse_log, read_log, recognise
from commlens.trace.nccl.operations import device_ops, message_numbers

HERE = Path("nccl-host-1.events")


@functools.cache
def whole_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        driven.drive(Path(folder), "plain", 6, 2)
        return driven.the_file(Path(folder)).read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_file_cut_off_anywhere_is_read_to_its_last_whole_record(data: st.DataObject) -> None:
    content = whole_file()
    end = data.draw(st.integers(0, len(content)))
    if end < layout.HEADER_BYTES:
        with pytest.raises(TraceError):
            parse_log(content[:end], HERE)
        return
    log, full = parse_log(content[:end], HERE), parse_log(content, HERE)
    assert log.torn == (end - layout.HEADER_BYTES) % layout.RECORD_BYTES
    assert log.damaged == 0
    of_full = {(int(each["communicator"]), int(each["order"])) for each in full.operations}
    assert {(int(each["communicator"]), int(each["order"])) for each in log.operations} <= of_full
    device_ops(log, 0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_costs_the_records_it_hit_and_is_counted(data: st.DataObject) -> None:
    content = bytearray(whole_file())
    at = data.draw(st.integers(layout.HEADER_BYTES, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    log, full = parse_log(bytes(content), HERE), parse_log(whole_file(), HERE)
    assert log.damaged >= 1
    assert len(log.operations) + log.damaged >= len(full.operations)
    device_ops(log, 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1200))
def test_whatever_follows_the_magic_is_an_error_of_ours_or_a_log(content: bytes) -> None:
    try:
        log = parse_log(layout.MAGIC + content, HERE)
    except TraceError:
        return
    device_ops(log, 0)


def test_files_of_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "other.events").write_bytes(b"something else" * 100)
    assert not recognise(b"something else")
    with pytest.raises(TraceError, match="no file of commlens' NCCL plugin"):
        read_log(tmp_path / "other.events")
    with pytest.raises(TraceError, match="cannot read"):
        read_log(tmp_path / "absent.events")


def test_a_newer_file_is_told() -> None:
    content = bytearray(whole_file())
    content[8] = layout.VERSION + 1
    with pytest.raises(NewerFormatError, match="pip install -U commlens"):
        parse_log(bytes(content), HERE)


def test_a_header_that_tells_nonsense_is_damage() -> None:
    content = bytearray(whole_file())
    content[16] ^= 1
    with pytest.raises(DamagedRunError):
        parse_log(bytes(content), HERE)


def test_nothing_whole_is_damage() -> None:
    content = whole_file()[: layout.HEADER_BYTES] + bytes(3 * layout.RECORD_BYTES)
    with pytest.raises(DamagedRunError, match="none of its 3 records"):
        parse_log(content, HERE)


def test_a_later_record_replaces_an_earlier_one() -> None:
    log = parse_log(whole_file(), HERE)
    raw = np.frombuffer(whole_file()[layout.HEADER_BYTES :], layout.OPERATION_RECORD)
    at = int(np.flatnonzero(raw["kind"] == layout.OPERATION)[0])
    start = layout.HEADER_BYTES + at * layout.RECORD_BYTES
    record = whole_file()[start : start + layout.RECORD_BYTES]
    twice = parse_log(whole_file() + record, HERE)
    assert (twice.operations == log.operations).all()


def test_messages_are_counted_by_peer_and_direction() -> None:
    rows = np.zeros(6, layout.OPERATION_RECORD)
    rows["order"] = range(6)
    rows["peer"] = [1, 1, 2, 1, 1, 1]
    rows["flags"] = [3, 1, 3, 3, 0, 1]  # send, recv, send, send, a collective, recv
    assert message_numbers(rows).tolist() == [0, 0, 0, 1, -1, 1]


# ---- the clock ----

starts = st.lists(st.integers(0, 10**11), min_size=1, max_size=40, unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    starts,
    st.data(),
    st.integers(-(10**18), 10**18),
    st.floats(-MOST_DRIFT / 2, MOST_DRIFT / 2),
    st.sampled_from([1, 32, 1000]),
)
def test_times_are_within_their_error(
    times: list[int], data: st.DataObject, offset: int, drift: float, tick: int
) -> None:
    """Whatever the clocks' difference, and however late things were read or early they were launched."""
    host = np.array(times, np.int64)
    exact = host - offset + (host * drift).round().astype(np.int64)
    device = exact // tick * tick
    late = np.array([data.draw(st.integers(0, 10**7)) for _ in times])
    early = np.array([data.draw(st.integers(0, 10**7)) for _ in times])
    yes = np.ones(len(times), bool)
    found = on_host(Evidence(device, host + late - device, yes, host - early - device, yes), device)
    # Of few times the tick cannot be told, and bounds may contradict each other by it: then nothing is claimed.
    slack = tick + 2
    assert (np.abs(found.time_ns - host) <= found.error_ns + slack)[found.known].all()
    if tick == 1:
        assert found.known.all()


def test_bounds_from_above_alone_give_the_latest_time() -> None:
    device = np.array([1000, 2000])
    yes, no = np.ones(2, bool), np.zeros(2, bool)
    found = on_host(Evidence(device, np.array([70, 50]), yes, np.array([0, 0]), no), device)
    assert found.time_ns.tolist() == [1050, 2050]
    assert found.error_ns.tolist() == [-1, -1]
    assert found.known.all()


def test_bounds_that_contradict_each_other_say_nothing() -> None:
    device = np.array([1000])
    yes = np.ones(1, bool)
    found = on_host(Evidence(device, np.array([50]), yes, np.array([60]), yes), device)
    assert not found.known.any()


def test_without_any_bound_nothing_is_known() -> None:
    device = np.array([1000])
    no = np.zeros(1, bool)
    assert not on_host(Evidence(device, np.array([0]), no, np.array([0]), no), device).known.any()


def test_resolution_is_the_step_of_the_clock() -> None:
    assert resolution(np.arange(100) * 1000 + 7) == 1000
    assert resolution(np.array([5, 9])) == 1
