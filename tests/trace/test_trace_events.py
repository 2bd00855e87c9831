"""Reading a trace's events a few at a time: any layout, any size of the pieces, any damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commlens.errors import TraceError
from commlens.trace.importers import trace_events
from commlens.trace.importers.content import Content
from commlens.trace.importers.trace_events import TraceEvents

EVENTS: list[dict[str, Any]] = [
    {"ph": "X", "cat": "kernel", "name": "a", "pid": 0, "tid": 7, "ts": 12, "dur": 3, "args": {"grid": [1, 2, 3]}},
    {"ph": "M", "name": "process_name", "pid": 1, "tid": "GPU 0 ", "args": {"labels": "CPU", "list": [{}, {"b": {}}]}},
    {
        "ph": "X",
        "cat": "cpu_op",
        "name": '},{ ] "traceEvents": [ \\" }],',
        "tid": 8,
        "ts": 1.5,
        "dur": 0.25,
        "args": {},
    },
    {"ph": "i", "name": "größer 漢字", "ts": 5},
    {"ph": "X", "name": "z", "ts": 1, "args": {"deep": [[{"c": [{"d": "]"}, {"e": "}"}]}]]}},
]
TAIL = {"traceName": "x},{y", "deviceProperties": [{"id": 0}, {"id": 1}], "baseTimeNanoseconds": 7}


def read(folder: Path, text: str | bytes) -> tuple[list[dict[str, Any]], TraceEvents]:
    path = folder / "trace.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    events = TraceEvents(Content(path))
    return [_as_dict(event) for some in events for event in some], events


def _as_dict(event: Any) -> dict[str, Any]:
    args = bytes(event.args)
    return {key: getattr(event, key) for key in ("ph", "cat", "name", "tid", "ts", "dur")} | {"args": args}


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "args": json.loads(event["args"])} for event in found]


def filled(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as they are read: unknown keys gone, absent ones empty."""
    empty = {"ph": "", "cat": "", "name": "", "tid": 0, "ts": 0.0, "dur": 0.0, "args": {}}
    return [{key: event.get(key, value) for key, value in empty.items()} for event in events]


def about(events: TraceEvents) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in events.about.items()}


def small_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(trace_events, "PIECE", size)


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"indent": 2},
    {"separators": (",", ":")},
    {"indent": "\t", "separators": (" , ", " : ")},
    {"ensure_ascii": False},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_any_layout_and_order_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any], place: int
) -> None:
    keys: list[tuple[str, Any]] = list(TAIL.items())
    keys.insert(place, ("traceEvents", EVENTS))
    text = json.dumps(dict(keys), **layout)
    for size in (1, 2, 3, 7, 16, 64, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, text)
        assert plain(found) == filled(EVENTS)
        assert about(events) == TAIL
        assert (events.whole, events.damaged) == (True, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bare_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]) -> None:
    for size in (1, 5, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, " \n" + json.dumps(EVENTS, **layout) + "\n ")
        assert plain(found) == filled(EVENTS)
        assert (events.about, events.whole, events.damaged) == ({}, True, 0)


@pytest.mark.parametrize("text", ["[]", " [ ] ", '{"traceEvents":[]}', '{"a":1,"traceEvents" : [ ] , "b":2}'])
def test_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for size in (1, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, text)
        assert (found, events.whole, events.damaged) == ([], True, 0)
        assert about(events) == ({"a": 1, "b": 2} if "b" in text else {})


def test_trailing_commas_are_forgiven(tmp_path: Path) -> None:
    found, events = read(tmp_path, '{"traceEvents":[{"ph":"X"},{"ph":"i"} , ], "b": 1}')
    assert [event["ph"] for event in found] == ["X", "i"]
    assert (about(events), events.whole) == ({"b": 1}, True)


def test_a_long_ending_that_looks_like_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many places in it look like the last event's end."""
    tail = {f"key {number}": [{"ph": "X"}, {"a": [{}]}] for number in range(5000)}
    for size in (1000, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, json.dumps({"traceEvents": EVENTS, **tail}))
        assert plain(found) == filled(EVENTS)
        assert (about(events), events.whole) == (tail, True)


def test_long_events_that_look_like_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [{"ph": "X", "name": "},{" * 30, "args": {"list": [{"ph": "B"}] * number}} for number in (3, 4000, 50)]
    for size in (100, 1 << 14, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, json.dumps({"traceEvents": [*EVENTS, *long, *EVENTS], **TAIL}))
        assert plain(found) == filled([*EVENTS, *long, *EVENTS])
        assert (about(events), events.whole, events.damaged) == (TAIL, True, 0)


def test_numbers_that_json_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm writes inf; Python writes NaN; in strings they are words."""
    text = '{"bad": -inf, "traceEvents": [%s], "worse": NaN, "word": "NaN, inf"}'
    event = '{"ph": "X", "name": "inf NaN \\" inf", "args": {"a": inf, "b": [-nan, -Infinity], "c": "-inf"}}'
    for size in (1, 10, 1 << 18):
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, text % ", ".join([event] * 20))
        expected = {"ph": "X", "name": 'inf NaN " inf', "args": {"a": None, "b": [None, None], "c": "-inf"}}
        assert plain(found) == filled([expected] * 20)
        assert about(events) == {"bad": None, "worse": None, "word": "NaN, inf"}
        assert (events.whole, events.damaged) == (True, 0)


def test_bytes_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = '{"ph":"X","name":"漢字ü"},'.encode()
    for size in range(1, 40):  # also in the middle of a letter
        small_pieces(monkeypatch, size)
        found, events = read(tmp_path, b'{"traceEvents":[' + good + b'{"ph":"X","name":"a\xffb"},' + good * 3 + b"{}]}")
        assert [event["name"] for event in found] == ["漢字ü", "a\ufffdb", *["漢字ü"] * 3, ""]
        assert (events.whole, events.damaged) == (True, 0)


@pytest.mark.parametrize("size", [1, 20, 1 << 18])
@pytest.mark.parametrize("bare", [False, True])
def test_cut_off_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, bare: bool) -> None:
    """Every event that was whole before the cut is there."""
    small_pieces(monkeypatch, size)
    parts = [json.dumps(event).encode() for event in EVENTS]
    head = b"[" if bare else b'{"schemaVersion": 1, "traceEvents": ['
    tail = b"]" if bare else b'], "deviceProperties": [{"id": 0}, {"id": 1}]}'
    text = head + b", ".join(parts) + tail
    ends = [len(head) + len(b", ".join(parts[: count + 1])) for count in range(len(parts))]
    for cut in range(len(text)):
        if cut < len(head):
            with pytest.raises(TraceError, match="holds no traceEvents"):
                read(tmp_path, text[:cut])
            continue
        found, events = read(tmp_path, text[:cut])
        assert plain(found) == filled(EVENTS)[: sum(end <= cut for end in ends)]
        assert (events.whole, events.damaged) == (False, 0)


DAMAGE = [
    '{"ph": "X", "name": "a", "ts": 1.2.3}',
    '{"ph": "X", "name": "a", "ts": null}',
    '{"ph": "X", "name": 5}',
    '{"ph": "X", "name": "C:\\path\\x"}',
    '{"ph": "X", "name": "a, "ts": 1}',
    '{"ph": "X", "args": {"a": 1}',
    '{"ph": "X", "args": {"a": 1}}}',
    '{"ph": "X", "args": {"a": [{}, {}, ?, {}]}}',
    '{"ph": "X" "ts": 1}',
]


@pytest.mark.parametrize("bad", DAMAGE)
@pytest.mark.parametrize("count", [2, 1000])
def test_damaged_events_cost_themselves_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, count: int
) -> None:
    """In a short file, and in the midst of long pieces: the events around it, and what follows them, are read."""
    small_pieces(monkeypatch, 1 << 12)
    monkeypatch.setattr(trace_events, "_DAMAGED", 1 << 14)
    good = [json.dumps(EVENTS[number % 5]) for number in range(count)]
    half = count // 2
    text = ", ".join([*good[:half], bad, *good[half:]])
    found, events = read(tmp_path, f'{{"traceEvents": [{text}], "list": [{{"a": 1}}, {{}}], "last": 1}}')
    expected = filled([EVENTS[number % 5] for number in range(count)])
    assert plain(found) == expected
    assert (events.damaged, events.whole) == (1, True)
    assert about(events) == {"list": [{"a": 1}, {}], "last": 1}


def test_an_event_without_an_end_costs_the_next(tmp_path: Path) -> None:
    good = [json.dumps(EVENTS[0])] * 5
    found, events = read(tmp_path, "[" + ", ".join([*good, '{"ph": "X", "ts": 1', *good]) + "]")
    assert plain(found) == filled([EVENTS[0]] * 9)
    assert (events.damaged, events.whole) == (1, True)


def test_unsorted_events_keep_their_order(tmp_path: Path) -> None:
    times = [5, 1, 9, 1, 0]
    found, _ = read(tmp_path, json.dumps([{"ph": "X", "ts": ts} for ts in times]))
    assert [event["ts"] for event in found] == times


def test_keys_given_twice(tmp_path: Path) -> None:
    found, events = read(tmp_path, '{"a":1,"a":2,"traceEvents":[{"ph":"X","ts":1,"ts":2}],"a":3}')
    assert found[0]["ts"] == 2
    assert about(events) == {"a": 3}


def test_events_nested_deeper_than_any(tmp_path: Path) -> None:
    deep = '{"ph":"X","args":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}"
    found, events = read(tmp_path, f'{{"traceEvents":[{{"ph":"i"}},{deep},{{"ph":"i"}}],"b":1}}')
    assert [event["ph"] for event in found] == ["i", "i"]
    assert (events.damaged, events.whole) == (1, True)


@pytest.mark.parametrize(
    "text", ["", "{}", "null", '{"traceEvents": 1}', '{"a": {"traceEvents": [', '{"traceEvents', '"', "\x00" * 100]
)
def test_what_is_no_trace(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceError, match=r"trace\.json holds no traceEvents: it is no trace .*; leave it out"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ['{"traceEvents":[', '{"traceEvents":[],"x":"', '{"x":"', "["])
def test_something_longer_than_any_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(trace_events, "_LONGEST", 1 << 20)
    with pytest.raises(TraceError, match=r"trace\.json holds something of over 1 MiB that is no event; it is damaged"):
        read(tmp_path, text + "a" * (3 << 20))


def test_a_long_string_with_many_escapes(tmp_path: Path) -> None:
    """Pieces that end within it are repaired in one go."""
    name = '\\"{}},{' * 200_000
    found, events = read(tmp_path, json.dumps({"traceEvents": [{"ph": "X", "name": name}, {"ph": "i"}]}))
    assert [event["name"] for event in found] == [name, ""]
    assert events.whole


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text(max_size=8)
    | st.sampled_from(["},{", "}]", '"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["},{", "}]", '\\"', "NaN, inf"]
)
drawn_events = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "ph": names,
            "name": names,
            "tid": st.integers(0, 2**40) | names,
            "ts": st.integers(0, 2**53) | st.floats(0, 1e16),
            "args": st.dictionaries(st.text(max_size=4), values, max_size=3),
        },
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=drawn_events,
    layout=st.sampled_from(LAYOUTS),
    size=st.integers(1, 60) | st.just(1 << 18),
    place=st.integers(0, 2),
    around=st.dictionaries(st.text(min_size=1, max_size=4), values, min_size=2, max_size=2),
    odd=st.booleans(),
)
def test_any_events_come_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[dict[str, Any]],
    layout: dict[str, Any],
    size: int,
    place: int,
    around: dict[str, Any],
    odd: bool,
) -> None:
    """`odd`: one more event that makes repairs needed."""
    small_pieces(monkeypatch, size)
    keys: list[tuple[str, Any]] = list(around.items())
    keys.insert(place, ("traceEvents", [*events, {"args": {"odd": float("inf")}}] if odd else events))
    found, read_events = read(tmp_path, json.dumps(dict(keys), **layout))
    assert plain(found) == filled([*events, {"args": {"odd": None}}] if odd else events)
    assert about(read_events) == around
    assert (read_events.whole, read_events.damaged) == (True, 0)


def test_many_beginnings_that_are_none(tmp_path: Path) -> None:
    """Each is tried by reading all that comes before it: a few are enough."""
    with pytest.raises(TraceError, match="holds no traceEvents"):
        read(tmp_path, '{"a": ' + '{"traceEvents": [' * 20_000)
