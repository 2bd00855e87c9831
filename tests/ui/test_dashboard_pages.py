"""Every page on every kind of run, without a browser: what is answered, how much is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocking_job import even_job
from plotly.utils import PlotlyJSONEncoder
from synthetic import MS, START, Collective, RankTruth, training_rank, write_run
from ui.runs_to_show import HOSTILE, KINDS, faulty

from commlens.analyzers.views.lines import BY_HOST, BY_RANK, BY_WORST, MOST, pick_lines
from commlens.trace.schema import MISSING
from commlens.ui.dashboard.pages import PAGES
from commlens.ui.dashboard.pages.timeline import _told
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.frame import MOST_MARKS
from commlens.ui.figures.timeline import Window, timeline

BY_NAME = {page.NAME: page for page in PAGES}


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


def test_the_bandwidth_page_speaks_of_no_option_of_a_command(tmp_path: Path) -> None:
    runs, view = shown(KINDS["faulty"](tmp_path / "run"))
    report = view.examined.report
    line = report.collectives[0]
    for count, says in ((12, None), (80, "the 64 costliest of 80")):
        many = replace(report, collectives=tuple(replace(line, bytes=4096 * (n + 1)) for n in range(count)))
        seen = replace(view, examined=replace(view.examined, report=many))
        words = [
            text
            for text in texts(
                json.loads(json.dumps(BY_NAME["bandwidth"].layout(seen, {}, runs), cls=PlotlyJSONEncoder))
            )
            if text
        ]
        assert not any("--format" in text for text in words)
        assert says is None or any(says in text for text in words)


def test_the_longest_part_of_the_path_is_the_same_in_the_headline_and_the_table(tmp_path: Path) -> None:
    runs, view = shown(KINDS["faulty"](tmp_path / "run"))
    report = view.examined.report
    assert report.critical_path is not None
    part = report.critical_path.parts[0]
    through = [
        replace(part, kind="transfer", name="all_reduce in group 0", rank=rank, ms=ms)
        for rank, ms in ((0, 3.0), (1, 2.0))
    ]
    work = replace(part, kind="compute", name="forward", rank=0, ms=4.0)
    path = replace(report.critical_path, parts=(work, *through))
    seen = replace(view, examined=replace(view.examined, report=replace(report, critical_path=path)))
    plain = json.loads(json.dumps(BY_NAME["path"].layout(seen, {}, runs), cls=PlotlyJSONEncoder))
    headline = [text for text in texts(plain[0]) if text][2]
    assert "the longest part is transfer, all_reduce in group 0: 5.00 ms" in headline
    assert "transfer, all_reduce in group 0" in list(texts(plain))


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


def test_collectives_under_way_at_once_do_not_cover_one_another(tmp_path: Path) -> None:
    """Two groups' collectives overlap: first two, then one alone."""
    rows = [
        Collective(START + at * MS, START + end * MS, START + at * MS, group=group)
        for at, end, group in ((10, 30, "0"), (20, 40, "1"), (70, 80, "0"))
    ]
    folder = write_run(tmp_path / "run", {rank: replace(training_rank(1), collectives=rows) for rank in range(2)})
    _, view = shown(folder)
    times = view.timeline
    drawn, close = timeline(times, pick_lines(view.examined.report).lines, Window(times.begin_ns, times.end_ns))
    assert close
    boxes = [
        (base, base + x, y + offset, y + offset + width)
        for trace in drawn.data
        if trace.type == "bar" and trace.name != "compute"
        for base, x, y, offset, width in zip(
            *(trace[key] for key in ("base", "x", "y", "offset", "width")), strict=True
        )
    ]
    assert len(boxes) == 6
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            beside = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] + 1e-9 or other[3] <= one[2] + 1e-9
            assert beside, (one, other)
        line = round(one[2] + 0.2)
        assert line - 0.43 < one[2] < one[3] < line + 0.07, "above what the rank computed"


def test_what_a_picture_of_shares_cannot_have_is_said(tmp_path: Path) -> None:
    """Nobody saw a wait for the last collectives of a rank that hangs: the picture has nothing for them."""
    whole = training_rank(40)
    hung = [*whole.collectives[:-3], *(replace(each, completed_ns=MISSING) for each in whole.collectives[-3:])]
    runs, view = shown(write_run(tmp_path / "run", {0: replace(whole, collectives=hung), 1: whole}))
    said = " ".join(texts(json.loads(json.dumps(BY_NAME["timeline"].layout(view, {}, runs), cls=PlotlyJSONEncoder))))
    assert "Each bar" in said and "not in the picture" not in said, "bars show them"
    lines, times = pick_lines(view.examined.report), view.timeline
    assert "for 3 of 160 parts of collectives is not known" in _told(times, False, lines)


def test_a_line_of_several_ranks_has_no_bars(tmp_path: Path) -> None:
    _, view = shown(faulty(tmp_path / "run"))
    times, hosts = view.timeline, pick_lines(view.examined.report, BY_HOST).lines
    assert len(hosts[0].positions) > 1
    begin = int(times.steps.starts[3])
    drawn, close = timeline(times, hosts, Window(begin, begin + 1_000_000))
    assert not close and len(drawn.layout.images) == 1


def test_arrivals_on_clocks_that_are_not_compared_are_not_joined(tmp_path: Path) -> None:
    """Their order would be that of the clocks."""
    _, view = shown(faulty(tmp_path / "run", ranks=2))
    times, lines = view.timeline, pick_lines(view.examined.report).lines
    window = Window(times.begin_ns, times.begin_ns + 2_000_000)
    names = {trace.name for trace in timeline(times, lines, window)[0].data}
    assert "arrivals of one collective" in names
    times.refusal = "two hosts share no collective"
    assert "arrivals of one collective" not in {trace.name for trace in timeline(times, lines, window)[0].data}


def test_hosts_whose_clocks_are_not_compared_begin_together(tmp_path: Path) -> None:
    """They may be days apart: on one axis nothing would be seen of either."""
    day = 86_400 * 10**9
    truths = even_job(ranks=2).truths()
    for rank, truth in truths.items():
        truth.info.update({"boot_id": f"boot {rank}", "groups": [{"name": "0", "ranks": [rank], "size": 1}]})
    folder = write_run(tmp_path / "run", truths | {1: later(truths[1], day)})
    times = shown(folder)[1].timeline
    assert times.refusal is not None
    assert times.end_ns - times.begin_ns < day / 1000
    assert (times.steps.ends - times.steps.starts).max() < day / 1000
    shares = times.shares(pick_lines(times.examined.report).lines, times.begin_ns, times.end_ns, 4)
    assert (shares.sum(axis=1) > 0.5).all(), "both ranks all the while"


def later(truth: RankTruth, ns: int) -> RankTruth:
    """The same on a clock that is so much ahead."""
    rows = [
        replace(row, **{name: at + ns for name in CLOCKED if (at := getattr(row, name)) != MISSING})
        for row in truth.collectives
    ]
    phases = [replace(phase, start_ns=phase.start_ns + ns, end_ns=phase.end_ns + ns) for phase in truth.phases]
    return replace(truth, collectives=rows, phases=phases)


CLOCKED = ("issued_ns", "started_ns", "completed_ns", "waited_ns")


def test_nobody_is_blamed_for_no_waiting(tmp_path: Path) -> None:
    runs, view = shown(KINDS["healthy"](tmp_path / "run"))
    words = list(texts(json.loads(json.dumps(BY_NAME["ranks"].layout(view, {}, runs)[0], cls=PlotlyJSONEncoder))))
    assert words[2] == "No rank makes the others wait."


def test_without_steps_waiting_is_that_of_the_whole_trace(tmp_path: Path) -> None:
    def row(place: int, late: int) -> Collective:
        begin = START + place * place * 40 * MS
        return Collective(begin + late * MS, begin + 20 * MS, begin + late * MS, in_bytes=4096 * (place + 1))

    rows = [[row(place, late) for place in range(4)] for late in (0, 10)]
    folder = write_run(tmp_path / "run", {rank: RankTruth(own) for rank, own in enumerate(rows)})
    runs, view = shown(folder)
    assert not view.examined.report.run.steps.analyzed
    words = list(texts(json.loads(json.dumps(BY_NAME["ranks"].layout(view, {}, runs)[0], cls=PlotlyJSONEncoder))))
    assert "a step" not in words[2]
    assert "over the whole trace" in words[2], words[2]


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
