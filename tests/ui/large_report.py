"""A made report of thousands of ranks: what analysis says of a small job, said of every rank, group and host."""

from __future__ import annotations

from dataclasses import replace

from ui.page_runs import report_of

from commlens import Report
from commlens.analyzers.across.progress import Progress, RankProgress
from commlens.analyzers.across.rank_lines import RankLine

RANKS, HOST = 2000, 8
TENSOR, DATA, PIPELINE = "tensor parallel", "data parallel", "pipeline parallel"
SIZES = (64_000, 256_000, 1_000_000, 4_000_000, 16_000_000)
LATE, SLOW_HOST, SLOW_GROUP = 1234, "node-077", "dp7"


def groups(ranks: int = RANKS) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Description and members by name: of 2,000 ranks one of all, 250 of eight, 100 of twenty, 249 pairs: 600."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {"0": ("default_pg", tuple(range(ranks)))}
    hosts = ranks // HOST
    found |= {f"tp{n}": (TENSOR, tuple(range(n * HOST, (n + 1) * HOST))) for n in range(hosts)}
    found |= {f"dp{n}": (DATA, tuple(range(n, ranks, ranks // 20))) for n in range(ranks // 20)}
    found |= {f"pp{n}": (PIPELINE, (n * HOST, (n + 1) * HOST)) for n in range(hosts - 1)}
    return found


def host_of(rank: int) -> str:
    return f"node-{rank // HOST:03d}"


def large(ranks: int = RANKS) -> Report:
    """A rank works longer and makes the others wait, a host's ranks work longer, a group is slow."""
    report, links = report_of("faulty"), report_of("counted").links
    line, cost = report.collectives[0], report_of("sized").cost_model[0]
    lines = [
        replace(
            line,
            group=name,
            group_desc=desc,
            group_size=len(members),
            bytes=size,
            transfer_ms_p50=size / 1e6 * (2 if name == SLOW_GROUP else 1) + len(name) / 1e4,
            exposed_ms_per_step=size / 1e7,
        )
        for name, (desc, members) in groups(ranks).items()
        for size in SIZES
    ]
    path = report.critical_path
    assert path is not None
    hosts = tuple(dict.fromkeys(host_of(rank) for rank in range(ranks)))
    return replace(
        report,
        run=replace(report.run, world_size=ranks, ranks_present=tuple(range(ranks)), hosts=hosts),
        ranks=tuple(_rank_line(report, rank) for rank in range(ranks)),
        time_budget=replace(
            report.time_budget,
            per_rank=tuple(replace(report.time_budget.per_rank[0], rank=rank) for rank in range(ranks)),
        ),
        collectives=tuple(sorted(lines, key=lambda each: -(each.exposed_ms_per_step or 0))),
        overlaps=tuple(
            replace(report.overlaps[0], group=name, bucket=bucket, exposed_ms_per_step=1.0 + len(name) / 10)
            for name in groups(ranks)
            for bucket in (None, 0, 1)
        ),
        cost_model=tuple(
            replace(cost, group=name, ranks=members, bandwidth_gb_s=1.0 if name == SLOW_GROUP else 2.0)
            for name, (_, members) in groups(ranks).items()
        ),
        critical_path=replace(
            path, parts=tuple(replace(path.parts[0], kind="compute", rank=rank, ms=0.01) for rank in range(ranks))
        ),
        sizes=tuple(replace(report.sizes[0], from_bytes=size, to_bytes=2 * size) for size in SIZES),
        progress=tuple(_progress(name, *of) for name, of in groups(ranks).items()),
        links=tuple(
            replace(links[0], host=host, share_of_peak=0.9 if host == SLOW_HOST else 0.3, tx_gb=1.0) for host in hosts
        ),
    )


def _rank_line(report: Report, rank: int) -> RankLine:
    late = rank == LATE
    return replace(
        report.ranks[0],
        rank=rank,
        host=host_of(rank),
        caused_wait_ms_per_step=5.0 if late else 0.01,
        wait_ms_per_step=0.1 if late else 4.0 + rank % 7 / 10,
        imbalance_ms_per_step=6.0 if late else 3.0 if host_of(rank) == SLOW_HOST else -0.01,
    )


def _progress(name: str, desc: str, members: tuple[int, ...]) -> Progress:
    each = tuple(RankProgress(rank, True, 10, 10, 10, "all_reduce") for rank in members)
    return Progress(name, desc, members, False, each, ())
