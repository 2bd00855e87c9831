"""Above 64 ranks what is alike stands together: nothing is lost, the worst is named, and who is asked for is found."""

from __future__ import annotations

from collections import Counter

import pytest
from ui.large_report import DATA, HOST, LATE, RANKS, SIZES, SLOW_GROUP, SLOW_HOST, TENSOR, groups, large
from ui.page_runs import report_of

from commlens import Report
from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.at_scale.chosen import chosen
from commlens.analyzers.at_scale.collective_kinds import collective_kinds
from commlens.analyzers.at_scale.cost_kinds import cost_kinds
from commlens.analyzers.at_scale.groups import kinds, members
from commlens.analyzers.at_scale.link_kinds import link_kinds
from commlens.analyzers.at_scale.many import MANY, is_many
from commlens.analyzers.at_scale.overlap_kinds import overlap_kinds
from commlens.analyzers.at_scale.path_hosts import path_hosts
from commlens.analyzers.at_scale.rank_sets import (
    BY,
    all_ranks,
    by_group,
    by_host,
    by_quantile,
    rank_set,
    spreads,
    worst_ranks,
    worst_sets,
)
from commlens.analyzers.at_scale.spread import spread
from commlens.analyzers.views.lines import BY_GROUP, BY_HOST, ORDERS, orders, pick_lines
from commlens.errors import UsageError


@pytest.fixture(scope="module")
def report() -> Report:
    return large()


def test_one_threshold() -> None:
    assert [is_many(large(ranks)) for ranks in (64, 72)] == [False, True] and MANY == 64
    assert orders(large(64)) == ORDERS


def test_a_spread_names_the_worst_and_leaves_out_what_is_not_known() -> None:
    found = spread([("a", 1.0), ("b", None), ("c", 3.0), ("d", 2.0)])
    assert found is not None
    assert (found.worst, found.whose, found.median, found.best, found.count) == (3.0, "c", 2.0, 1.0, 3)
    assert found.good == pytest.approx(1.2) and found.bad == pytest.approx(2.8)
    less = spread([("a", 1.0), ("c", 3.0), ("e", 1.0)], more_is_worse=False)
    assert less is not None and (less.worst, less.whose, less.best) == (1.0, "a", 3.0)
    assert spread([("a", None)]) is None


def test_alike_collectives_stand_together_and_none_is_lost(report: Report) -> None:
    found = collective_kinds(report)
    assert len(report.collectives) == 600 * len(SIZES)
    assert Counter(line for each in found for line in each.lines) == Counter(report.collectives)
    assert len(found) == 4 * len(SIZES), "four kinds of groups"
    assert sum(each.exposed_ms_per_step or 0 for each in found) == pytest.approx(
        sum(line.exposed_ms_per_step or 0 for line in report.collectives)
    )
    slow = next(each for each in found if each.kind.name == DATA and each.bytes == SIZES[-1])
    assert slow.lines[0].group == SLOW_GROUP and slow.transfer_ms is not None and slow.transfer_ms.whose == SLOW_GROUP
    assert slow.apart == pytest.approx(2.0, rel=0.01) and slow.transfer_ms.count == 100
    costs = [each.exposed_ms_per_step or 0 for each in found]
    assert costs == sorted(costs, reverse=True)


def test_groups_that_nobody_described_are_told_apart_by_their_size() -> None:
    from dataclasses import replace

    report = large(72)
    bare = replace(
        report,
        progress=tuple(replace(each, desc="undefined") for each in report.progress),
        collectives=tuple(replace(line, group_desc="undefined") for line in report.collectives),
    )
    assert {kind.name for kind in kinds(bare).values()} == {
        "groups of 72",
        "groups of 8",
        "groups of 24",
        "groups of 2",
    }
    assert {kind.name for kind in kinds(report).values()} >= {TENSOR, DATA}


def test_costs_overlap_and_links_of_a_kind(report: Report) -> None:
    worst = next(each for each in cost_kinds(report) if each.kind.name == DATA)
    assert worst.bandwidth_gb_s is not None and worst.lines[0].group == worst.bandwidth_gb_s.whose == SLOW_GROUP
    assert worst.typical is not None and worst.typical.bandwidth_gb_s == 2.0
    found = overlap_kinds(report)
    assert len(found) == 4 * 3 and sum(len(each.lines) for each in found) == len(report.overlaps)
    for each in found:
        exposed = [line.exposed_ms_per_step for line in each.lines]
        assert each.mean.exposed_ms_per_step == pytest.approx(sum(exposed) / len(exposed), abs=1e-6)
    (link,) = link_kinds(report.links)
    assert len(link.lines) == RANKS // HOST and link.lines[0].host == SLOW_HOST
    assert link.share_of_peak is not None and (link.share_of_peak.worst, link.share_of_peak.median) == (0.9, 0.3)


@pytest.mark.parametrize("way", BY)
def test_sets_hold_every_rank(report: Report, way: str) -> None:
    found = BY[way](report, None)
    if way != "group":
        assert sorted(rank for each in found for rank in each.ranks) == list(range(RANKS))
    else:
        assert {each.name: each.ranks for each in found} == {name: of for name, (_, of) in groups().items()}
    few = BY[way](report, {1, 9, LATE})
    assert {rank for each in few for rank in each.ranks} == {1, 9, LATE}


def test_the_worst_come_first_also_behind_one_that_is_later(report: Report) -> None:
    late, slow = f"node-{LATE // HOST:03d}", SLOW_HOST
    assert {each.name for each in by_host(report)[:2]} == {late, slow}, "one causes, the other works longer"
    assert by_host(report)[0].worst == LATE and by_host(report)[0].worst_caused_ms == 5.0
    assert by_group(report)[0].ranks.count(LATE) == 1
    shown = [budget.rank for budget, _ in worst_ranks(all_ranks(report), 12)]
    assert LATE in shown and any(rank // HOST == 77 for rank in shown) and len(shown) == 12
    told = spreads(all_ranks(report))
    assert told["caused"].whose == told["extra"].whose == f"rank {LATE}" and told["caused"].median == 0.01
    assert [len(each.ranks) for each in by_quantile(report)] == [RANKS // 10] * 10
    names = [each.name for each in worst_sets(by_host(report), 4)]
    assert len(names) == len(set(names)) == 4


def test_below_it_half_cause_and_half_wait() -> None:
    ranks = all_ranks(large(64))
    causing = sorted(ranks, key=lambda rank: -(rank[1].caused_wait_ms_per_step or 0))[:6]
    still = sorted(ranks, key=lambda rank: -(rank[0].exposed_ms or 0))
    expected = list(dict.fromkeys(rank[0].rank for rank in [*causing, *still]))[:12]
    assert [budget.rank for budget, _ in worst_ranks(ranks, 12)] == sorted(expected)


def test_means_of_a_set_leave_out_what_is_not_known() -> None:
    known = all_ranks(report_of("faulty"))
    found = rank_set("all", known)
    steps = [budget.step_ms for budget, _ in known if budget.step_ms is not None]
    assert found.means["step"] == pytest.approx(sum(steps) / len(steps), abs=1e-6)
    single = rank_set("one", all_ranks(report_of("nothing")))
    assert single.means == {} and single.worst is None, "nothing is known, and nobody is to blame"


def test_lines_of_hosts_and_groups(report: Report) -> None:
    hosts, of_groups = (pick_lines(report, order) for order in (BY_HOST, BY_GROUP))
    assert "64 of 250 hosts" in hosts.left_out and "64 of 600 process groups" in of_groups.left_out
    assert {line.name for line in hosts.lines[:2]} == {f"node-{LATE // HOST:03d}", SLOW_HOST}
    few = pick_lines(report, "rank", among={3, LATE})
    assert [line.name for line in few.lines] == ["rank 3", f"rank {LATE}"] and few.left_out == ""


def test_the_path_by_host_holds_all_of_it(report: Report) -> None:
    path = report.critical_path
    assert path is not None
    found = path_hosts(report)
    assert sum(each.ms for each in found) == pytest.approx(sum(part.ms for part in path.parts), abs=1e-3)
    assert sorted(rank for each in found for rank in each.ranks) == list(range(RANKS))


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("17", [17]),
        (" 17 , 512-514 ", [17, 512, 513, 514]),
        ("512:515", [512, 513, 514]),
        ("0:100:40", [0, 40, 80]),
        ("1990:", list(range(1990, 2000))),
        ("::1000", [0, 1000]),
        ("1998-5000", [1998, 1999]),
        ("node-003", list(range(24, 32))),
        ("host=node-003,group=tp4", list(range(24, 40))),
        ("dp1", list(range(1, 2000, 100))),
        ("group=0", list(range(2000))),
    ],
)
def test_who_is_asked_for_is_found(report: Report, text: str, ranks: list[int]) -> None:
    assert [budget.rank for budget, _ in chosen(report, text)] == ranks


@pytest.mark.parametrize(
    "text", ["", ",", "2000", "9-3", "group=node-003", "host=tp4", "dp1 dp2", "-5", ":", "x" * 400]
)
def test_who_is_not_there_is_said(report: Report, text: str) -> None:
    with pytest.raises(UsageError, match="give numbers"):
        chosen(report, text)


def test_members_of_pairs_that_only_talk() -> None:
    from dataclasses import replace

    report = large(72)
    pairs = tuple(replace(each, point_to_point=True) for each in report.progress if each.group == "pp1")
    both = (*pairs, replace(pairs[0], members=(16, 24)))
    assert members(replace(report, progress=both, cost_model=()))["pp1"] == (8, 16, 24)


def test_lists_of_ranks_end() -> None:
    assert name_ranks(range(0, 64, 2)).count(",") == 31, "as many as 64 ranks can have"
    assert name_ranks(range(0, 2000, 8)) == "ranks 0, 8, 16, ..., 1992, one in 8 (250 ranks)"
    scattered = [n * n for n in range(2, 42)]
    assert name_ranks(scattered).startswith("ranks 4, 9, 16, ") and name_ranks(scattered).endswith(", ... (40 ranks)")
    assert name_ranks(range(5, 900)) == "ranks 5-899"
