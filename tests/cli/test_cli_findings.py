"""The text of a report: what each section says, with units, in the width of a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import BlockingJob, even_job, slower
from synthetic import MS, RankTruth, training_rank, without_phases, write_run

import commlens
from commlens import Report
from commlens.analyzers.across.progress import Progress, RankProgress
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.collectives import BASIS
from commlens.analyzers.report import Abstention, Action, Evidence, Finding
from commlens.analyzers.steps import INFERRED
from commlens.render.findings import TOP_FINDINGS, quantity
from commlens.render.report import print_report
from commlens.render.words import open_console

WIDTHS = (80, 100, 160)
DEVICE = {"host": "host", "boot_id": "boot", "imported": "kineto"}


def report_of(tmp_path: Path, ranks: BlockingJob | dict[int, RankTruth]) -> Report:
    truths = ranks.truths() if isinstance(ranks, BlockingJob) else ranks
    return commlens.analyze(commlens.open_run(write_run(tmp_path / "run", truths)))


def lines_of(report: Report, width: int = 80) -> list[str]:
    stream = io.StringIO()
    print_report(report, open_console(stream, width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []
    return lines


def section(lines: Sequence[str], title: str) -> list[str]:
    """The lines under a title."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = lines[start + 1 :]
    return rest[: next((i for i, line in enumerate(rest) if line and not line.startswith(" ")), len(rest))]


def prose(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Four ranks, steps of 112 ms: rank 1 is 10 ms late in each."""
    return report_of(tmp_path_factory.mktemp("late"), slower(even_job(), 1, 10 * MS))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_late_rank(late: Report, width: int) -> None:
    lines = lines_of(late, width)
    head = prose(lines[: lines.index("Findings")])
    assert "Communication costs 13.7 ms of each 112 ms step (12 %)." in head
    assert "About 56 % of it is waiting for late ranks, 44 % moving bytes." in head
    assert "Rank 1 is always late: longer compute in backward" in head
    finding = prose(section(lines, "Findings"))
    assert "straggler-rank: costs up to 9.8" in finding
    assert "ms of each 112 ms step (9 %); confidence high" in finding
    for part in ("100 % steps in which it is last", "<0.001 probability of that by chance", "ms other ranks wait for"):
        assert part in finding
    for label in (" do ", " check ", " wrong if "):
        assert sum(line.startswith(f"    {label}") for line in section(lines, "Findings")) == 1
    assert " risk " not in finding


def test_a_late_rank_in_the_tables(late: Report) -> None:
    lines = lines_of(late)
    budget = section(lines, "Where a step goes")
    assert [line.split()[:2] for line in budget[1:3]] == [["exposed", "wait"], ["exposed", "transfer"]]
    assert "wait: this rank had arrived, another had not; transfer: all had arrived" in prose(budget)
    head, _, *ranks = section(lines, "Each rank")
    assert " ".join(head.split()) == "rank step compute wait transfer other hidden overlap last caused"
    caused = {row.split()[0]: float(row.split()[-1]) for row in ranks[:4]}
    assert caused["1"] == pytest.approx(10, abs=0.3)
    assert max(ms for rank, ms in caused.items() if rank != "1") < 0.5


def test_what_fixes_the_end(late: Report) -> None:
    lines = lines_of(late)
    path = prose(section(lines, "What fixes the step's end"))
    assert "(mean of 20 steps of 112 ms)" in prose(lines)
    assert "compute, rank 1, backward" in path
    assert "transfer, all_reduce in group 0 6.00 ms 5 %" in path
    assert "Means:" not in path


def test_what_it_rests_on(late: Report) -> None:
    trust = prose(section(lines_of(late), "What this rests on"))
    assert "matched 264 of 264, by group members and sequence number" in trust
    assert "clocks one clock: all ranks are on one host" in trust


def test_clocks_of_two_hosts(tmp_path: Path) -> None:
    hosts = ("alpha.cluster.example.org", "alpha.cluster.example.org", "beta.cluster.example.org", "gamma")
    job = slower(even_job(hosts=hosts, offset=(0, 0, 5 * MS, 9 * MS)), 1, 10 * MS)
    lines = lines_of(report_of(tmp_path, job))
    trust = prose(section(lines, "What this rests on"))
    assert "clocks collectives: bounds" in trust
    assert "can be wrong against each other by" in trust
    head, _, *ranks = section(lines, "Each rank")
    assert {"rank", "host", "wait", "transfer", "last", "caused"} <= set(head.split())
    assert [row.split()[1] for row in ranks[:4]] == ["alpha", "alpha", "beta", "gamma"]


def test_nothing_found_says_what_was_compared(tmp_path: Path) -> None:
    lines = lines_of(report_of(tmp_path, even_job()))
    found = prose(section(lines, "Findings"))
    assert "none above 2 % of a step, over 20 steps; compared: late ranks, small collectives, hangs" in found
    assert "not known slow groups: no two groups are alike, and there is no calibration" in found
    assert "No cause above 2 % of a step was found. The costliest: all_reduce of 4.1 kB" in prose(lines)


def test_one_rank_is_not_called_healthy(tmp_path: Path) -> None:
    lines = lines_of(report_of(tmp_path, {0: training_rank(6)}))
    assert "How much of it is waiting for late ranks is not known." in prose(lines)
    assert "Which rank is always late cannot be told." in prose(lines)
    assert "No cause" not in prose(lines)
    found = prose(section(lines, "Findings"))
    assert "not known late ranks" in found
    assert "compared: late ranks" not in found
    assert "exposed communication" in prose(section(lines, "Where a step goes"))
    assert "exposed" in section(lines, "Each rank")[0]


def test_few_steps_are_not_called_healthy(tmp_path: Path) -> None:
    found = prose(section(lines_of(report_of(tmp_path, even_job(steps=6))), "Findings"))
    assert "late ranks: see the end" in found


def test_ranks_without_steps_show_what_is_known(tmp_path: Path) -> None:
    work = np.full((4, 1, 9), 30 * MS)
    work[1] += 10 * MS
    job = BlockingJob(work, np.full(9, 2 * MS), bytes=[4 * n for n in range(1, 10)])
    report = report_of(tmp_path, {rank: without_phases(truth) for rank, truth in job.truths().items()})
    assert report.run.steps.analyzed == 0
    lines = lines_of(report)
    head, _, *ranks = section(lines, "Each rank (ms over the whole trace)")
    assert head.split() == ["rank", "wait", "last", "caused"]
    assert ranks[1].split() == ["1", "0", "100", "%", "90.0"]
    assert "cannot be told" in prose(lines)
    assert "steps" not in prose(section(lines, "Findings")).split("not known")[0]
    assert "last. caused: what each other rank waits for it." in prose(lines)


def test_without_steps_nothing_is_said_of_a_step(tmp_path: Path) -> None:
    work = 30 * MS + np.random.default_rng(0).integers(0, MS // 4, (2, 1, 9))
    job = BlockingJob(work, np.full(9, 2 * MS), bytes=[4 * n for n in range(1, 10)])
    report = report_of(tmp_path, {rank: without_phases(truth) for rank, truth in job.truths().items()})
    assert report.run.steps.analyzed == 0
    lines = lines_of(report)
    found = prose(section(lines, "Findings"))
    assert "none over the whole trace; compared: late ranks, hangs" in found
    assert "not known slow groups, small collectives: no steps are known" in found
    assert "No cause was found." in prose(lines)
    assert "of a step was found" not in prose(lines) and "mean over steps" not in prose(lines)


def test_many_ranks(tmp_path: Path) -> None:
    work = 30 * MS + np.random.default_rng(0).integers(0, MS // 4, (40, 12, 2))
    work[33, :, 0] += 10 * MS
    report = report_of(tmp_path, BlockingJob(work, np.full(2, 2 * MS)))
    lines = lines_of(report)
    assert "12 of 40, those that cause or wait most" in prose(lines)
    shown = [row.split()[0] for row in section(lines, "Each rank")[2:14]]
    assert "33" in shown
    assert len(set(shown)) == 12


def test_long_names_do_not_break_tables(late: Report) -> None:
    (line,) = late.collectives
    named = [replace(line, group=f"{n}", group_desc="a very long description of a process group") for n in range(3)]
    report = replace(late, collectives=tuple(named))
    rows = section(lines_of(report), "Collectives: ")
    assert all("(a very lon…" in row for row in rows[3:6])
    assert "busbw" in rows[0]
    assert "algbw" not in rows[0]
    assert "algbw" in section(lines_of(report, 100), "Collectives: ")[0]


@pytest.mark.parametrize(
    ("bases", "title"),
    [
        ((ALIGNED,), "GB/s of the transfer, without waiting"),
        ((CLOCK_FREE,), "GB/s of the shortest duration over the ranks, without waiting"),
        ((BASIS,), "GB/s are lower bounds, durations include waiting for late ranks"),
        ((ALIGNED, BASIS), "GB/s of the transfer; < and > are bounds, waiting included"),
        ((None,), "no bandwidth is known"),
    ],
)
def test_what_bandwidths_rest_on(late: Report, bases: tuple[str | None, ...], title: str) -> None:
    (line,) = late.collectives
    known = (ALIGNED, CLOCK_FREE)
    made = [
        replace(
            line,
            bandwidth_basis=basis,
            transfer_ms_p50=line.transfer_ms_p50 if basis in known else None,
            algbw_gb_s=line.algbw_gb_s if basis else None,
        )
        for basis in bases
    ]
    lines = lines_of(replace(late, collectives=tuple(made)), 100)
    start = next(i for i, text in enumerate(lines) if text.startswith("Collectives"))
    assert title in prose(lines[start : start + 2])
    table = prose(section(lines, "Collectives"))
    assert ("<" in table and ">" in table) == (len(bases) > 1)


def test_regime_and_efficiency_where_known(late: Report) -> None:
    (line,) = late.collectives
    known = replace(line, regime="latency-bound", efficiency=0.42)
    rows = prose(section(lines_of(replace(late, collectives=(known,)), 100), "Collectives"))
    assert "42 % latency" in rows
    assert "peak" not in prose(section(lines_of(late, 100), "Collectives"))


def test_cost_of_messages(tmp_path: Path) -> None:
    sizes = np.array([1 << power for power in range(10, 24, 2)])
    transfer = (100_000 + sizes / 2).astype(np.int64)  # 100 us, 2 GB/s
    draw = np.random.default_rng(0).integers(0, 2000, (2, 20, sizes.size))
    lines = lines_of(report_of(tmp_path, BlockingJob(MS + draw, transfer, bytes=sizes.tolist())))
    head, _, row, *rest = section(lines, "Cost of a message")
    assert "alpha us" in head
    assert "bandwidth GB/s" in head
    words = row.split()
    assert float(words[3]) == pytest.approx(100, abs=1)
    assert float(words[5]) == pytest.approx(2, abs=0.02)
    assert "not known" not in prose(rest)


def test_costs_that_are_not_known_take_one_sentence(late: Report) -> None:
    note = prose(section(lines_of(late, 160), "Cost of a message"))
    assert note.startswith("not known: all_reduce in group 0: one message size only")
    assert note.count("not known") == 1


def finding(**changes: object) -> Finding:
    action = Action("See what rank 1 does.", "one line of code", None, "costs memory", None, None, "commlens run")
    base = Finding(
        id="hang",
        title="rank 1 did not come",
        layer="host",
        severity="critical",
        confidence="high",
        ranks=(1,),
        group="0",
        steps=(),
        evidence=(Evidence("rank 0 stood in it for", 31.25, "s"), Evidence("message", 4096, "bytes")),
        ceiling_ms=None,
        actions=(action,),
        could_be_wrong_if=("it is slow", "it is gone"),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_hang_shows_how_far_each_rank_got(late: Report) -> None:
    places = (RankProgress(0, True, 58, 58, 57, "all_reduce"), RankProgress(1, True, 57, 57, 57, "barrier"))
    progress = Progress("0", "default_pg", (0, 1, 2), False, (*places, RankProgress(2, False)), (1,))
    lines = lines_of(replace(late, findings=(finding(),), progress=(progress,)))
    found = prose(section(lines, "Findings"))
    assert "hang: confidence high" in found
    assert "31.2 s rank 0 stood in it for" in found
    assert "4.1 kB message" in found
    assert "change one line of code risk costs memory check commlens run wrong if it is slow; or it is gone" in found
    got = prose(section(lines, "How far each rank got"))
    assert "group 0 (default_pg) rank 0: issued 58 (all_reduce), ended 57" in got
    assert "rank 1: issued 57 (barrier), ended 57" in got
    assert "rank 2: not recorded" in got


def test_what_may_be_a_hang_is_not_called_healthy(late: Report) -> None:
    unsure = Abstention("hang", "too short to call it one", "the launcher's messages")
    lines = lines_of(replace(late, findings=(), abstentions=(unsure, *late.abstentions)))
    assert "Whether it hung cannot be told." in prose(lines)
    assert "not known hangs: see the end" in prose(section(lines, "Findings")).replace("slow groups, ", "")


def test_only_the_costliest_findings_are_shown(late: Report) -> None:
    many = tuple(finding(title=f"cause {n}", ceiling_ms=9.0 - n, severity="high", steps=range(9)) for n in range(7))
    lines = lines_of(replace(late, findings=many))
    assert "Findings (5 of 7, all with --format json)" in lines
    found = prose(section(lines, "Findings"))
    assert found.count("cause ") == TOP_FINDINGS
    assert "costs up to 9.00 ms of each 112 ms step (8 %); steps 0, 1, 2, 3, 4 and 4 more; confidence high" in found


def test_exposed_time_that_is_not_split(late: Report) -> None:
    budget = replace(late.time_budget, exposed_wait_ms=2.0, exposed_transfer_ms=6.0, exposed_unsplit_ms=2.0)
    lines = lines_of(replace(late, time_budget=budget))
    assert "About 20 % of it is waiting for late ranks, 60 % moving bytes, 20 % could not be split" in prose(lines)
    assert "exposed, not split 2.00 ms" in prose(section(lines, "Where a step goes"))


def test_waiting_in_a_few_steps_is_seen_beside_the_median(late: Report) -> None:
    budget = replace(late.time_budget, exposed_wait_ms=0.0)
    note = prose(section(lines_of(replace(late, time_budget=budget)), "Where a step goes"))
    assert "Waiting is uneven:" in note
    assert "0 ms in the usual one" in note


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (27.176, "ms", "27.2 ms"),
        (4096, "B", "4.1 kB"),
        (100.0, "%", "100 %"),
        (3.8e-6, "", "<0.001"),
        (2.0, "steps", "2 steps"),
        (57, "", "57"),
    ],
)
def test_units(value: float, unit: str, text: str) -> None:
    assert quantity(Evidence("", value, unit)) == text


def test_what_times_and_bandwidths_of_collectives_are_of(late: Report) -> None:
    (line,) = late.collectives
    assert "of a rank's part of a collective, over all parts, and so the bandwidths" in prose(lines_of(late))
    assert "outside the group" not in prose(lines_of(late))
    part = replace(line, group_size=2)
    assert "exposed: mean over all ranks of the job, 0 of those outside the group" in prose(
        lines_of(replace(late, collectives=(part,)))
    )
    bound = replace(line, bandwidth_basis=BASIS)
    assert "a rank's part" not in prose(lines_of(replace(late, collectives=(bound,))))


def test_an_overlap_of_all_steps_beside_medians_says_so(late: Report) -> None:
    budget = replace(late.time_budget, hidden_ms=0.0, exposed_ms=30.0, overlap=0.03)
    said = "The overlap is of all steps together: of the medians it would be 0 %."
    assert said in prose(lines_of(replace(late, time_budget=budget)))
    even = replace(budget, hidden_ms=1.0)
    assert "The overlap is of all steps" not in prose(lines_of(replace(late, time_budget=even)))


def test_steps_that_were_guessed_may_be_several_iterations(late: Report) -> None:
    guessed = replace(late, run=replace(late.run, steps=replace(late.run.steps, how=INFERRED)))
    assert "inferred from the repeating signature; one may be several iterations" in prose(lines_of(guessed))
    assert "several iterations" not in prose(lines_of(late))


def test_the_header_of_device_times(tmp_path: Path) -> None:
    truths = {
        rank: replace(
            without_phases(truth),
            collectives=[replace(row, timing="device", started_ns=row.issued_ns) for row in truth.collectives],
            info=truth.info | DEVICE,
        )
        for rank, truth in slower(even_job(), 1, 10 * MS).truths().items()
    }
    lines = lines_of(report_of(tmp_path, truths))
    assert "caused" in section(lines, "Each rank")[0]
    assert "GB/s of the transfer" in prose(lines)
