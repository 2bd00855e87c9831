"""A report written in pieces is the JSON of its dict."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from healthy_run import write_healthy
from hypothesis import given
from hypothesis import strategies as st

from commlens import Report, analyze, open_run


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return analyze(open_run(write_healthy(tmp_path_factory.mktemp("run"))))


def test_pieces_are_the_text_of_the_whole(healthy: Report) -> None:
    pieces = list(healthy.to_json())
    assert "".join(pieces) == _whole(healthy)
    assert max(map(len, pieces)) < 0.1 * sum(map(len, pieces))


@given(notes=st.lists(st.text(max_size=8), max_size=3), host=st.text(max_size=4))
def test_whatever_words_are_in_it(notes: list[str], host: str, healthy: Report) -> None:
    told = replace(healthy.coverage, notes=(*notes, "two\nlines"))
    report = replace(healthy, coverage=told, ranks=tuple(replace(line, host=host) for line in healthy.ranks))
    assert "".join(report.to_json()) == _whole(report)


def _whole(report: Report) -> str:
    return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
