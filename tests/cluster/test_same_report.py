"""On a cluster the report is the same, byte for byte, whatever the run is like."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from any_run import ranks as any_rank
from blocking_job import even_job, slower
from counted_job import two_hosts
from healthy_run import write_healthy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import MS, RankTruth, write_run

from commlens import analyze, open_run
from commlens.analyzers.comparison import compare, side
from commlens.analyzers.stages import examine
from commlens.analyzers.views.heat import find_heat
from commlens.analyzers.whatif.asked import simulator_of, what_if
from commlens.cluster.connect import connected
from commlens.cluster.engine import Cluster
from commlens.trace.changes import parse_all

Runs = Callable[[Path], Path]


def _several(path: Path) -> Path:
    return write_run(path, slower(even_job(ranks=6), rank=2, ns=3 * MS).truths())


def _without_a_rank(path: Path) -> Path:
    run = _several(path)
    (run / "rank-00004" / "rank.json").unlink()
    return run


def _half(path: Path) -> Path:
    run = _several(path)
    for rank in (1, 3, 5):
        (run / f"rank-{rank:05d}" / "rank.json").write_text("{")
    return run


def _torn(path: Path) -> Path:
    run = _several(path)
    table = run / "rank-00001" / "collectives.arrows"
    table.write_bytes(table.read_bytes()[:-200])
    return run


def _unreadable(path: Path) -> Path:
    run = _several(path)
    table = run / "rank-00003" / "collectives.arrows"
    table.unlink()
    table.mkdir()  # reading it fails, also for root
    return run


def _hosts(path: Path) -> Path:
    return write_run(path, two_hosts().truths())


RUNS: dict[str, Runs] = {
    "healthy": write_healthy,
    "several": _several,
    "a rank missing": _without_a_rank,
    "half missing": _half,
    "torn": _torn,
    "unreadable": _unreadable,
    "hosts": _hosts,
}


@pytest.mark.parametrize("name", RUNS)
def test_of_a_run(name: str, tmp_path: Path, cluster: Cluster) -> None:
    run = RUNS[name](tmp_path / "run")
    assert _json(run, cluster) == _json(run)


def test_a_rank_that_cannot_be_read_is_in_the_coverage(tmp_path: Path, cluster: Cluster) -> None:
    run = _unreadable(tmp_path / "run")
    for report in (analyze(open_run(run), cluster), analyze(open_run(run))):
        assert report.coverage.damaged_ranks == (3,)
        assert any(note.startswith("rank 3 is left out: cannot read ") for note in report.coverage.notes)
        assert report.run.ranks_missing == (3,)


def test_what_a_change_gains_is_the_same(tmp_path: Path, cluster: Cluster) -> None:
    run = _several(tmp_path / "run")
    sets = [parse_all("link.bandwidth=x2"), parse_all("imbalance.remove=1")]
    here, there = (what_if(simulator_of(open_run(run), *where), sets) for where in ((), (cluster,)))
    assert here.scenarios[1].predicted is not None
    assert there == here


def test_comparisons_are_the_same(tmp_path: Path, cluster: Cluster) -> None:
    runs = [write_run(tmp_path / str(seed), even_job(ranks=4, seed=seed).truths()) for seed in (1, 2)]
    here, there = (compare(*(side(examine(open_run(run), *where)) for run in runs)) for where in ((), (cluster,)))
    assert there.to_dict() == here.to_dict()


def test_views_are_the_same(tmp_path: Path, cluster: Cluster) -> None:
    run = _several(tmp_path / "run")
    here, there = (examine(open_run(run), *where) for where in ((), (cluster,)))
    heats = [find_heat(each.ranks, each.joined) for each in (here, there)]
    assert heats[0] is not None and heats[1] is not None
    for name, values in vars(heats[0]).items():
        assert np.array_equal(values, getattr(heats[1], name)), name


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(truths=st.dictionaries(st.integers(0, 4), any_rank(), min_size=1, max_size=4))
def test_of_anything(truths: dict[int, RankTruth], cluster: Cluster) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), truths, world_size=5)
        assert _json(run, cluster) == _json(run)


def test_what_was_kept_goes_with_the_last_use(tmp_path: Path) -> None:
    run = write_healthy(tmp_path / "run")
    (tmp_path / "scratch").mkdir()
    with connected(1, None, tmp_path / "scratch") as engine:
        kept = examine(open_run(run), engine)
        (folder,) = {path.parent for path in (tmp_path / "scratch").glob("*/*/0000.0-*")}
        assert kept.ranks[0].rank == 0
        del kept
        gc.collect()
        assert not folder.exists()
        again = examine(open_run(run), engine)  # the worker has let go of the other's files
        assert again.report == analyze(open_run(run))
    assert list((tmp_path / "scratch").iterdir()) == []


def _json(run: Path, *where: Cluster) -> str:
    return json.dumps(analyze(open_run(run), *where).to_dict(), indent=2, allow_nan=False)
