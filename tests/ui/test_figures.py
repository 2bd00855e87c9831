"""Figures: what they show is the report's, what they cannot show they say, and no name becomes markup."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
from page_runs import HOSTILE, RUNS, report_of

from commlens import Report
from commlens.render.words import milliseconds
from commlens.ui import figures, palette
from commlens.ui.figures import bandwidths, by_rank, frame

Draw = Callable[[Report], Any]
DRAWN = pytest.mark.parametrize("draw", figures.ALL, ids=lambda draw: draw.__name__)
MANY_RANKS, MANY_LINES = 2000, 5000


def traces(drawn: Any) -> list[dict[str, Any]]:
    return list(drawn.to_plotly_json()["data"])


def by_name(drawn: Any) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in traces(drawn)}


def said(drawn: Any) -> str:
    """The words in a figure that has nothing to show."""
    return " ".join(each["text"].replace("<br>", " ") for each in drawn.to_plotly_json()["layout"]["annotations"])


@DRAWN
@pytest.mark.parametrize("name", RUNS)
def test_plotly_finds_nothing_wrong_with_them(name: str, draw: Draw) -> None:
    """They are made without its checks, for speed."""
    drawn = draw(report_of(name))
    go.Figure(drawn.to_plotly_json())
    assert frame.alt(drawn)
    assert frame.marks(drawn) > 0 or frame.empty(drawn)


def test_the_budget_shows_the_reports_numbers() -> None:
    report = report_of("faulty")
    told = by_name(figures.budget(report))
    assert told["exposed wait"]["x"] == [report.time_budget.exposed_wait_ms]
    assert told["exposed wait"]["text"] == [f"{milliseconds(report.time_budget.exposed_wait_ms)} ms"]
    assert told["compute"]["x"] == [report.time_budget.compute_ms]
    assert set(told) <= set(palette.NAMES.values())


def test_where_waiting_is_not_known_exposed_time_is_one_part() -> None:
    assert "exposed communication" in by_name(figures.budget(report_of("single")))
    assert set(by_name(figures.steps(report_of("single")))) >= {"compute", "exposed communication"}
    assert "exposed wait" not in by_name(figures.rank_budgets(report_of("single")))


def test_each_step_adds_up() -> None:
    report = report_of("faulty")
    parts = [trace["y"] for trace in traces(figures.steps(report)) if trace["type"] == "bar"]
    sums = [sum(part) for part in zip(*parts, strict=True)]
    assert sums == pytest.approx([line.step_ms for line in report.by_step])


def test_the_late_rank_stands_out() -> None:
    report = report_of("faulty")
    told = by_name(figures.ranks(report))
    caused = told["others wait for it (caused)"]["y"]
    assert max(range(8), key=lambda rank: caused[rank]) == 3
    assert caused[3] == report.ranks[3].caused_wait_ms_per_step


def test_what_could_not_be_split_is_not_called_transfer() -> None:
    assert "exposed transfer, or not split" in by_name(figures.overlap(report_of("partial")))
    assert "exposed, not split" in by_name(figures.budget(report_of("partial")))
    assert "exposed transfer" not in by_name(figures.overlap(report_of("partial")))
    assert "exposed transfer" in by_name(figures.overlap(report_of("faulty")))


def test_links_that_tell_nothing_say_so() -> None:
    report = report_of("counted")
    unread = replace(report.links[0], used_gb_s_p50=None, used_gb_s_mean=None, state="not read")
    drawn = figures.links(replace(report, links=(unread, *report.links[1:]))).to_plotly_json()
    assert [each["text"].strip() for each in drawn["layout"]["annotations"]] == ["not read"]


def test_ranks_are_grouped_by_host() -> None:
    for drawn in (figures.ranks(report_of("faulty")), figures.rank_budgets(report_of("faulty"))):
        layout = drawn.to_plotly_json()["layout"]
        assert [(each["text"], each["x"]) for each in layout["annotations"]] == [("node-0", -0.45), ("node-1", 3.55)]
        assert [shape["x0"] for shape in layout["shapes"]] == [3.5]
    assert figures.ranks(report_of("healthy")).to_plotly_json()["layout"]["annotations"] == []


def test_the_fitted_curve_passes_through_its_points() -> None:
    drawn = figures.bandwidth(report_of("sized"), measure=bandwidths.ALGORITHM)
    told = by_name(drawn)
    curve = next(trace for name, trace in told.items() if name.startswith("fit of all_reduce"))
    assert "alpha 200 us" in curve["name"]
    assert curve["y"][-1] == pytest.approx(1.0, rel=0.01)  # 1 GB/s, alpha no longer matters
    for size, rate in zip(told["all_reduce"]["x"], told["all_reduce"]["y"], strict=True):
        assert rate == pytest.approx(size / (200e3 + size), rel=0.02)
    edge = drawn.to_plotly_json()["layout"]["shapes"][0]["x0"]
    assert edge == pytest.approx(200_000, rel=0.02)  # where alpha takes as long as the bytes


def test_bus_bandwidth_has_nccl_tests_factor() -> None:
    bus, algorithm = (figures.bandwidth(report_of("sized"), measure=each) for each in ("busbw", "algbw"))
    for one, other in zip(traces(bus), traces(algorithm), strict=True):
        assert one["y"] == pytest.approx([2 * 3 / 4 * value for value in other["y"]], rel=0.01)


def test_lower_bounds_are_marked() -> None:
    (points,) = traces(figures.bandwidth(report_of("single")))[:1]
    assert "lower bound" in points["name"]
    assert "open" in points["marker"]["symbol"]


def test_a_calibrated_peak_is_shown() -> None:
    report = report_of("sized")
    lines = tuple(replace(line, efficiency=0.5) for line in report.collectives)
    told = by_name(figures.bandwidth(replace(report, collectives=lines)))
    assert told["calibrated peak"]["y"] == pytest.approx([2 * (line.busbw_gb_s or 0) for line in lines])


def test_links_stand_against_their_peaks() -> None:
    report = report_of("counted")
    told = by_name(figures.links(report))
    assert told["used"]["x"] == [line.used_gb_s_p50 for line in report.links]
    assert told["peak"]["x"] == [1.25, 1.25]


def test_the_path_adds_up_for_the_whole_and_the_ranks() -> None:
    report = report_of("faulty")
    assert report.critical_path is not None
    parts = [[value or 0 for value in trace["x"]] for trace in traces(figures.critical_path(report))]
    rows = [sum(row) for row in zip(*parts, strict=True)]
    assert rows[0] == pytest.approx(report.critical_path.step_ms, abs=1e-4)
    assert sum(rows[1:]) == pytest.approx(rows[0], abs=1e-4)


@DRAWN
def test_nothing_to_show_is_said(draw: Draw) -> None:
    drawn = draw(report_of("nothing"))
    assert frame.empty(drawn)
    assert traces(drawn) == []
    assert said(drawn).startswith("Not shown: ")


def test_the_reason_is_the_abstentions() -> None:
    assert "no collective was recorded" in said(figures.budget(report_of("nothing")))
    assert "only one rank was recorded" in said(figures.critical_path(report_of("single")))
    assert "only one rank was recorded" in said(figures.ranks(report_of("single")))
    assert "no counters of links were read" in said(figures.links(report_of("healthy")))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)


@DRAWN
def test_names_are_no_markup(draw: Draw) -> None:
    """Of tags only plotly's own line breaks and the bold name of a row are used."""
    drawn = draw(report_of("hostile")).to_plotly_json()
    for text in strings({"data": drawn["data"], "annotations": drawn["layout"].get("annotations")}):
        plain = text
        for ours in ("<br>", "<b>whole path</b>", "<extra></extra>"):
            plain = plain.replace(ours, "")
        assert "<" not in plain
        assert "%{x}" not in plain
        assert "$a$" not in plain


def test_a_name_is_shown_as_it_is() -> None:
    assert frame.shown("<b>&{$") == "&lt;b&gt;&amp;&#123;&#36;"
    assert frame.shown("a\nb\u202ec") == "a b c"
    assert frame.shown("x" * 100, 11) == "xxxxxxx…xxx"
    drawn = json.dumps(figures.overlap(several_groups(report_of("hostile"))).to_plotly_json())
    assert "&lt;img" in drawn
    assert HOSTILE not in drawn


def several_groups(report: Report) -> Report:
    return replace(report, overlaps=(*report.overlaps, *(replace(line, group="1") for line in report.overlaps)))


@pytest.fixture(scope="module")
def huge() -> Report:
    """2000 ranks, 500 steps, 5000 kinds of collectives."""
    report = report_of("sized")
    budget, rank, line = report.time_budget.per_rank[0], report.ranks[0], report.collectives[0]
    overlap, path = report.overlaps[0], report.critical_path
    assert path is not None
    part = path.parts[0]
    wide = range(MANY_LINES)
    return replace(
        report,
        by_step=tuple(replace(report.by_step[0], step=step) for step in range(500)),
        ranks=tuple(replace(rank, rank=n, caused_wait_ms_per_step=float(n)) for n in range(MANY_RANKS)),
        time_budget=replace(
            report.time_budget,
            per_rank=tuple(replace(budget, rank=n, exposed_ms=float(n)) for n in range(MANY_RANKS)),
        ),
        collectives=tuple(replace(line, group=str(n), bytes=1000 + n) for n in wide),
        overlaps=tuple(replace(overlap, group=str(n)) for n in wide),
        cost_model=tuple(replace(report.cost_model[0], group=str(n)) for n in wide),
        critical_path=replace(path, parts=tuple(replace(part, rank=n) for n in range(MANY_RANKS))),
    )


@DRAWN
def test_never_more_marks_than_a_browser_takes(draw: Draw, huge: Report) -> None:
    assert frame.marks(draw(huge)) <= frame.MOST_MARKS


def test_of_many_ranks_the_worst_are_shown_and_it_says_so(huge: Report) -> None:
    drawn = figures.ranks(huge).to_plotly_json()
    assert len(drawn["data"][0]["x"]) == by_rank.MOST_RANKS
    assert drawn["layout"]["annotations"][0]["text"] == "64 of 2,000 ranks: those that wait, work or cause most"
    assert drawn["data"][1]["y"][-1] == MANY_RANKS - 1
    assert "64 of 2,000 ranks" in by_rank.rank_budgets(huge).to_plotly_json()["layout"]["annotations"][0]["text"]
    assert "2,000 of 5,000" in figures.bandwidth(huge).to_plotly_json()["layout"]["annotations"][-1]["text"]
    assert len(figures.overlap(huge).to_plotly_json()["data"][0]["x"]) == 1, "5,000 groups that are alike"
    assert "more ranks on the path" in figures.critical_path(huge).to_plotly_json()["layout"]["annotations"][0]["text"]


def test_plotly_is_loaded_with_the_first_figure_only() -> None:
    code = (
        "import commlens.ui.figures, commlens.ui.html, commlens.analyzers.stages, sys; print('plotly' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "False"


def test_meanings_have_colours_of_their_own() -> None:
    parts = (palette.COMPUTE, palette.WAIT, palette.TRANSFER, palette.UNSPLIT, palette.OTHER, palette.HIDDEN)
    assert len({palette.COLOURS[part] for part in parts}) == len(parts)
    assert set(palette.COLOURS) == set(palette.NAMES) >= set(palette.PATTERNS)
    assert len({palette.series(place) for place in range(64)}) == 64
