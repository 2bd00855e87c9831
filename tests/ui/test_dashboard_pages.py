"""Every page on every kind of run, without a browser: what is answered, how much is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.utils import PlotlyJSONEncoder
from ui.runs_to_show import HOSTILE, KINDS, faulty

from commlens.analyzers.views.lines import BY_HOST, BY_RANK, BY_WORST, MOST, pick_lines
from commlens.ui.dashboard.pages import PAGES
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.frame import MOST_MARKS
from commlens.ui.figures.timeline import Window, timeline


def shown(folder: Path) -> tuple[Runs, View]:
    runs = Runs([folder])
    return runs, runs.view(runs.keys[0])


@pytest.fixture(scope="module", params=sorted(KINDS))
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Runs, View]:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, *shown(KINDS[request.param](folder))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.NAME)
def test_every_page_answers_in_its_first_line(each: tuple[str, Runs, View], page: Any) -> None:
    _, runs, view = each
    plain = json.loads(json.dumps(page.layout(view, {}, runs), cls=PlotlyJSONEncoder))
    words = [text for text in texts(plain[0]) if text]
    assert words[0] == page.TITLE and words[1] == page.QUESTION
    assert len(words[2]) > 20, "an answer"
    for figure in figures(plain):
        assert marks(figure) <= MOST_MARKS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.NAME)
def test_names_are_words_and_no_markup(page: Any, tmp_path: Path) -> None:
    runs, view = shown(KINDS["hostile"](tmp_path / "run"))
    assert HOSTILE in view.examined.report.run.hosts
    plain = json.loads(json.dumps(page.layout(view, {}, runs), cls=PlotlyJSONEncoder))
    drawn = json.dumps(figures(plain))
    assert "<img" not in drawn, "plotly takes tags in texts for markup"
    assert "dangerously" not in json.dumps(plain).lower()


def test_of_many_ranks_the_worst_are_shown(tmp_path: Path) -> None:
    runs, view = shown(faulty(tmp_path / "run", ranks=520, steps=4, collectives=6))
    report = view.examined.report
    by_rank, worst, hosts = (pick_lines(report, order) for order in (BY_RANK, BY_WORST, BY_HOST))
    assert len(by_rank.lines) == len(worst.lines) == len(hosts.lines) == MOST
    assert "64 of 520 ranks" in by_rank.left_out and "64 of 65 hosts" in hosts.left_out
    causing = max(report.ranks, key=lambda line: line.caused_wait_ms_per_step or 0).rank
    assert worst.lines[0].name == f"rank {causing}"
    assert causing in {int(line.name.split()[1]) for line in by_rank.lines}
    for page in PAGES:
        plain = json.loads(json.dumps(page.layout(view, {}, runs), cls=PlotlyJSONEncoder))
        assert all(marks(figure) <= MOST_MARKS for figure in figures(plain)), page.NAME


def test_the_timeline_shows_what_was_recorded(tmp_path: Path) -> None:
    _, view = shown(faulty(tmp_path / "run"))
    times, lines = view.timeline, pick_lines(view.examined.report).lines
    begin, end = int(times.steps.starts[3]), int(times.steps.ends[3])
    bars = times.bars(lines, begin, end, 10**6)
    assert bars is not None
    for position, facts in enumerate(view.examined.ranks):
        rows = facts.columns.collectives
        started, ended = (
            times.examined.joined.clocks.aligned(position, rows[name]) for name in ("started_ns", "completed_ns")
        )
        inside = np.flatnonzero((ended > begin) & (started < end) & (ended > started))
        own = (bars.position == position) & (bars.row >= 0)
        assert set(bars.row[own]) == set(inside), "every collective that overlaps it, and no other"
        for row in inside[:5]:
            parts = own & (bars.row == row)
            assert (bars.end_ns[parts] - bars.start_ns[parts]).sum() == ended[row] - started[row]


def test_shares_are_the_budget(tmp_path: Path) -> None:
    """Far out the picture says what the report's budget says, rank by rank and step by step."""
    _, view = shown(faulty(tmp_path / "run"))
    times, lines, joined = view.timeline, pick_lines(view.examined.report).lines, view.examined.joined
    for position, facts in enumerate(view.examined.ranks):
        budget, exposed = facts.budget, joined.exposed[position]
        assert budget is not None
        known = np.stack([exposed.wait, exposed.transfer, exposed.unsplit, budget.compute, budget.other])
        starts, ends = (joined.clocks.aligned(position, side) for side in (facts.steps.start_ns, facts.steps.end_ns))
        for step, (begin, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            seen = times.shares(lines, begin, end, 1)[position, :, 0] * (end - begin)
            # Shares are float32, and clocks that drift stretch time a little.
            assert seen == pytest.approx(known[:, step], abs=2000)


def test_far_out_a_picture_close_up_bars(tmp_path: Path) -> None:
    _, view = shown(faulty(tmp_path / "run", ranks=8, steps=40))
    times, lines = view.timeline, pick_lines(view.examined.report).lines
    begin = int(times.steps.starts[3])
    far, is_close = timeline(times, lines, Window(times.begin_ns, times.end_ns))
    assert len(far.layout.images) == 1 and not is_close
    close, is_close = timeline(times, lines, Window(begin, begin + 2_000_000))
    assert not close.layout.images and is_close


def texts(plain: Any) -> Iterator[str]:
    """Words of components, in order."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, list):
        for each in plain:
            yield from texts(each)
    elif isinstance(plain, dict) and "props" in plain:
        yield from texts(plain["props"].get("children"))


def figures(plain: Any) -> list[dict[str, Any]]:
    """Figures among components."""
    if isinstance(plain, list):
        return [found for each in plain for found in figures(each)]
    if not isinstance(plain, dict):
        return []
    if plain.get("type") == "Graph":
        return [plain["props"]["figure"]]
    return figures(plain.get("props", {}).get("children")) if "props" in plain else []


def marks(figure: dict[str, Any]) -> int:
    """Points, bars and cells of a figure."""
    return sum(_of_trace(trace) for trace in figure["data"])


def _of_trace(trace: dict[str, Any]) -> int:
    if trace["type"] == "heatmap":
        return _length(trace["x"]) * _length(trace["y"])
    return max(_length(trace.get("x")), _length(trace.get("y")))


def _length(values: Any) -> int:
    if isinstance(values, dict):  # packed numbers
        import base64

        return len(base64.b64decode(values["bdata"])) // int(np.dtype(values["dtype"]).itemsize)
    return len(values or ())
