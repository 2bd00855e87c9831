"""Reports and pages of thousands of ranks: short enough to read and to draw, the worst first, single ones on demand."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_words import Page
from plotly.utils import PlotlyJSONEncoder
from ui.large_report import DATA, LATE, RANKS, SLOW_GROUP, SLOW_HOST, large
from ui.runs_to_show import faulty

from commlens import Report
from commlens.analyzers.at_scale.collective_kinds import collective_kinds
from commlens.analyzers.coverage import TruncatedRank
from commlens.analyzers.held import Engine, Held, Here
from commlens.analyzers.views.heat import Heat, find_heat
from commlens.analyzers.views.lines import pick_lines
from commlens.analyzers.views.timeline import Timeline
from commlens.render.report import print_report
from commlens.render.words import open_console
from commlens.ui import figures
from commlens.ui.dashboard.choice import find_choice
from commlens.ui.dashboard.pages import PAGES
from commlens.ui.dashboard.pages.ranks import clicked_line
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures import frame
from commlens.ui.html import to_html

BY_NAME = {page.NAME: page for page in PAGES}
MOST_LINES = 260  # of a report on a terminal of 100 columns
MOST_HTML = 5 << 20


@pytest.fixture(scope="module")
def report() -> Report:
    return large()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, View]:
    """A run of 72 ranks."""
    runs = Runs([faulty(tmp_path_factory.mktemp("many") / "run", ranks=72, steps=4, collectives=6)])
    return runs, runs.view(runs.keys[0])


@pytest.fixture(scope="module")
def shown(report: Report, real: tuple[Runs, View]) -> tuple[Runs, View]:
    """The same with the made report, of which all pages but the timeline are made."""
    runs, view = real
    made = replace(view, examined=replace(view.examined, report=report))
    waits = np.random.default_rng(0).random((RANKS, 40))
    made.__dict__["heat"] = Heat(np.arange(40), waits, waits)
    return runs, made


def printed(report: Report, width: int = 100) -> str:
    page = io.StringIO()
    print_report(report, open_console(page, width=width))
    return page.getvalue()


def plain(view: View, name: str, query: dict[str, str], runs: Runs) -> str:
    return json.dumps(BY_NAME[name].layout(view, query, runs), cls=PlotlyJSONEncoder)


def test_the_report_is_short_and_names_the_worst(report: Report) -> None:
    text = printed(report)
    assert len(text.splitlines()) < MOST_LINES
    assert f"rank {LATE}" in text and SLOW_HOST in text
    row = next(line for line in text.splitlines() if line.strip().startswith(f"{DATA} x 100"))
    assert SLOW_GROUP in row, "the worst of a hundred groups is named"
    assert "Collectives: 600 groups" in text and "--by host" in text and "2,000 ranks" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal(report: Report, width: int) -> None:
    assert max(len(line) for line in printed(report, width).splitlines()) <= width


def test_up_to_64_ranks_nothing_is_put_together() -> None:
    few, many = printed(large(64)), printed(large(72))
    for words in ("--by host", "alike", "of 64 ranks", "tensor parallel x"):
        assert words not in few
    assert "--by host" in many and "tensor parallel x 9" in many and "of 72 ranks" in many


def test_the_one_file_report_is_small(report: Report) -> None:
    html = to_html(report)
    assert len(html.encode()) < MOST_HTML
    words = " ".join(Page(html).words.values())
    assert f"rank {LATE}" in words and SLOW_GROUP in words


@pytest.mark.parametrize("draw", figures.ALL, ids=lambda draw: draw.__name__)
def test_figures_stay_drawable(draw: Any, report: Report) -> None:
    import plotly.graph_objects as go

    drawn = draw(report)
    go.Figure(drawn.to_plotly_json())
    assert 0 < frame.marks(drawn) <= 3_000, "of 30,000 that a browser takes"


def test_a_point_of_bandwidth_tells_the_lowest_of_its_groups(report: Report) -> None:
    drawn = figures.bandwidth(report).to_plotly_json()
    words = [text for trace in drawn["data"] for text in trace.get("customdata", ())]
    kinds = [each for each in collective_kinds(report) if each.busbw_gb_s is not None]
    assert len([text for text in words if "lowest" in text]) == sum(len(each.lines) > 1 for each in kinds)
    for trace in (each for each in drawn["data"] if "error_y" in each):
        assert min(trace["error_y"]["array"]) >= 0 and min(trace["error_y"]["arrayminus"]) >= 0


def test_bands_of_ranks_hold_their_means(report: Report) -> None:
    drawn = figures.rank_budgets(report).to_plotly_json()
    assert drawn["layout"]["xaxis"]["ticktext"][:2] == [f"rank {LATE}", "0-10 %"], "it causes most, and works longest"
    assert len(drawn["data"][0]["x"]) == 11


@pytest.mark.parametrize("name", [page.NAME for page in PAGES if page.NAME != "timeline"])
def test_pages_of_thousands_of_ranks_are_short(name: str, shown: tuple[Runs, View]) -> None:
    runs, view = shown
    found = plain(view, name, {}, runs)
    assert len(found) < 1_000_000, "characters: some 200 kB go over the wire"
    assert found.count('"type": "Tr"') < 400


def test_ranks_are_asked_for_by_host_group_and_number(shown: tuple[Runs, View]) -> None:
    runs, view = shown
    host = plain(view, "ranks", {"order": "host"}, runs)
    assert f"ranks=host%3D{SLOW_HOST}" in host, "a host is a link to its ranks"
    group = plain(view, "ranks", {"order": "group"}, runs)
    assert "ranks=group%3D" in group
    few = plain(view, "ranks", {"ranks": f"3, {LATE}"}, runs)
    assert "2 ranks of 2,000" in few and f"rank {LATE}" in few and "/timeline?run=run&ranks=3" in few
    wrong = plain(view, "ranks", {"ranks": "node-9999"}, runs)
    assert "no rank was recorded" in wrong and "32 of 2,000" in wrong


def test_kinds_of_groups_lead_to_single_ones(report: Report, shown: tuple[Runs, View]) -> None:
    runs, view = shown
    kind = next(each for each in collective_kinds(report) if each.kind.name == DATA)
    found = plain(view, "bandwidth", {"kind": kind.key}, runs)
    assert "64 slowest of 100" in found
    single = found[found.index("Single groups") :]
    assert re.findall(r"ranks=group%3D(\w+)", single)[0] == SLOW_GROUP, "the slowest first"
    assert "Single groups" not in plain(view, "bandwidth", {"kind": "no such"}, runs)
    overlap = plain(view, "overlap", {"kind": f"{DATA}~100~all_reduce~"}, runs)
    assert "Alike groups together" in overlap
    assert "takes 2 times as long in group dp7" in plain(view, "bandwidth", {}, runs)


def test_the_timeline_opens_on_the_worst_and_shows_who_is_asked_for(real: tuple[Runs, View]) -> None:
    runs, view = real
    worst = max(view.examined.report.ranks, key=lambda line: line.caused_wait_ms_per_step or 0).rank
    first = plain(view, "timeline", {}, runs)
    assert f'"rank {worst}"' in first and "32 of 72 ranks" in first
    few = plain(view, "timeline", {"ranks": "5,host=node-008"}, runs)
    assert '["rank 5", "rank 64"' in json.dumps(sorted_names(few)) and "9 ranks of 72" in few
    hosts = plain(view, "timeline", {"order": "host"}, runs)
    assert "node-008" in hosts and "by process group" not in hosts


def sorted_names(page: str) -> list[str]:
    """Names of the lines of a page's first figure, by number."""
    body = json.loads(page)
    names = next(each for each in walk(body) if isinstance(each, dict) and "ticktext" in each)["ticktext"]
    return sorted(names, key=lambda name: int(name.split()[-1]))


def walk(value: Any) -> Any:
    yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(each)


class Elsewhere(Held[Any]):
    """Items that lie elsewhere: which of them were taken is noted."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.taken = items, set[int]()

    @property
    def engine(self) -> Engine:
        return There()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        self.taken.add(index)
        return self.items[index]


class There(Here):
    """Runs functions where the items of `Elsewhere` lie."""

    def each(self, function: Callable[..., Any], *sequences: Sequence[Any]) -> list[Any]:
        return super().each(function, *(own.items if isinstance(own, Elsewhere) else own for own in sequences))


def test_of_ranks_that_lie_elsewhere_only_those_shown_are_fetched(real: tuple[Runs, View]) -> None:
    _, view = real
    examined = view.examined
    ranks, waits, exposed = (Elsewhere(own) for own in (examined.ranks, examined.joined.waits, examined.joined.exposed))
    joined = replace(examined.joined, waits=waits, exposed=exposed)
    found, here = find_heat(ranks, joined), find_heat(examined.ranks, examined.joined)
    assert found is not None and here is not None
    assert np.array_equal(found.waited, here.waited) and np.array_equal(found.caused, here.caused)
    times = Timeline(replace(examined, ranks=ranks, joined=joined))
    assert (times.begin_ns, times.end_ns, times.rows) == (
        view.timeline.begin_ns,
        view.timeline.end_ns,
        view.timeline.rows,
    )
    assert not ranks.taken | waits.taken | exposed.taken, "a run is opened without its rows"
    lines = pick_lines(examined.report, "rank", among={3, 70}).lines
    shares = times.shares(lines, times.begin_ns, times.end_ns, 50)
    assert np.array_equal(shares, view.timeline.shares(lines, times.begin_ns, times.end_ns, 50))
    assert ranks.taken == waits.taken == {3, 70}


def test_a_click_on_a_host_or_group_is_a_choice(report: Report) -> None:
    hosts, groups, ranks = (pick_lines(report, order) for order in ("host", "group", "worst"))
    assert clicked_line(hosts, {"points": [{"y": 1}]}, "host") == f"host={hosts.lines[1].name}"
    assert find_choice(report, clicked_line(groups, {"points": [{"y": 0}]}, "group")).among is not None
    assert clicked_line(ranks, {"points": [{"y": 0}]}, "worst") is None
    for nothing in (None, {}, {"points": []}, {"points": [{"y": "x"}]}, {"points": [{"y": 99}]}):
        assert clicked_line(hosts, nothing, "host") is None


def test_few_ranks_have_no_field_to_name_them(tmp_path: Path) -> None:
    runs = Runs([faulty(tmp_path / "run", ranks=8, steps=4, collectives=6)])
    view = runs.view(runs.keys[0])
    for name in ("ranks", "timeline"):
        assert '"hidden": true' in plain(view, name, {}, runs)
        assert '"hidden": true' not in plain(view, name, {"ranks": "1,2"}, runs)
        assert "by process group" not in plain(view, name, {}, runs)


@pytest.mark.parametrize("width", [60, 400])
def test_what_is_not_known_of_many_ranks_is_no_number(width: int) -> None:
    """Clocks refused, hosts and sizes not known, no step told: as an imported trace of a hundred devices."""
    made = large(96)
    bare = replace(
        made,
        run=replace(made.run, hosts=()),
        ranks=tuple(
            replace(
                line,
                host=None,
                wait_ms_per_step=None,
                caused_wait_ms_per_step=None,
                imbalance_ms_per_step=None,
                arrives_last_share=None,
            )
            for line in made.ranks
        ),
        collectives=tuple(
            replace(
                line,
                bytes=None,
                transfer_ms_p50=None,
                transfer_ms_p95=None,
                wait_ms_mean=None,
                exposed_ms_per_step=None,
                busbw_gb_s=None,
                algbw_gb_s=None,
                bandwidth_basis=None,
            )
            for line in made.collectives
        ),
        cost_model=(),
        overlaps=(),
        critical_path=None,
        links=(),
    )
    text = printed(bare, width)
    assert "of 96 ranks" in text and "caused" not in text and "by host" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("default_pg x 1")).split()
    assert "all_reduce" in row and "-" in row, "durations alone are known"
    for draw in figures.ALL:
        assert frame.alt(draw(bare))
    to_html(bare)


def test_many_damaged_ranks_are_a_few_lines(report: Report) -> None:
    cut = tuple(TruncatedRank(rank, ("collectives",)) for rank in range(500))
    text = printed(replace(report, coverage=replace(report.coverage, truncated=cut)))
    assert [line.split() for line in text.splitlines() if "cut short" in line] == [
        ["cut", "short", "ranks", "0-499:", "collectives"]
    ]
