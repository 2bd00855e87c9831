"""The client knows of each rank what is short; what is long it looks at where that lies."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from blocking_job import even_job
from synthetic import write_run

from commlens import open_run
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.waits import Timed, Waits
from commlens.analyzers.columns import Columns
from commlens.analyzers.held import Lengthy
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.stages import examine, join_ranks
from commlens.cluster import engine
from commlens.cluster.engine import Cluster

RANKS = 12
LONG: tuple[type[Lengthy], ...] = (RankFacts, Waits, Exposed, Matched, Timed)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", even_job(ranks=RANKS).truths())


def test_a_rank_comes_without_its_long_fields(run: Path, cluster: Cluster) -> None:
    there, joined = join_ranks(open_run(run), cluster.apart())
    here, of_here = join_ranks(open_run(run))
    for position in range(RANKS):
        assert vars(there[position]).keys() & RankFacts.long == set()
        assert there[position].who == here[position].who
        assert there[position].rows == here[position].rows == here[position].analysed.size
        _same(there[position], here[position])
        _same(joined.waits[position], of_here.waits[position])
        _same(joined.exposed[position], of_here.exposed[position])
    for one, other in zip(joined.matched, of_here.matched, strict=True):
        _same(one, other)


def _same(there: Lengthy, here: Lengthy) -> None:
    assert vars(there).keys() & type(there).long == set()
    for name in type(there).long:
        if isinstance(getattr(here, name), np.ndarray):
            assert np.array_equal(getattr(there, name), getattr(here, name)), name


def test_sent_to_a_worker_a_rank_is_whole(run: Path, cluster: Cluster) -> None:
    engine = cluster.apart()
    ranks, _ = join_ranks(open_run(run), engine)
    some = [ranks[3], ranks[7]]
    found = engine.each(attrgetter("exposed_ns"), some)
    assert all(np.array_equal(one, facts.exposed_ns) for one, facts in zip(found, some, strict=True))
    (back,) = engine.each(attrgetter("__dict__"), [ranks[5]])
    assert back.keys() >= RankFacts.long


def test_a_field_that_there_is_none_of(run: Path, cluster: Cluster) -> None:
    ranks, _ = join_ranks(open_run(run), cluster.apart())
    with pytest.raises(AttributeError, match="RankFacts has no colums"):
        ranks[0].colums  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="RankFacts has no columns"):
        join_ranks(open_run(run))[0][0].without_long().columns  # type: ignore[attr-defined]  # noqa: B018


def test_few_are_whole_at_a_time(run: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WHOLE", 3)
    before = _living(Columns)
    ranks, _ = join_ranks(open_run(run), cluster.apart())
    for _ in range(2):
        assert [facts.columns.collectives["seq"].size for facts in ranks] == [facts.rows for facts in ranks]
    assert len(_new(before, _living(Columns))) <= 3


def test_after_an_analysis_nothing_long_is_here(run: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WHOLE", 3)
    before = [each for kind in LONG for each in _living(kind)]
    examined = examine(open_run(run), cluster)
    assert examined.path is not None  # which looked at some ranks
    assert len(examined.ranks) == RANKS
    for kind in LONG:
        assert sum(bool(vars(each).keys() & kind.long) for each in _new(before, _living(kind))) <= 3


def _living(kind: type) -> list[object]:
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]


def _new(before: Sequence[object], now: Sequence[object]) -> list[object]:
    """Those that other tests of this process did not leave behind."""
    known = {id(each) for each in before}
    return [each for each in now if id(each) not in known]
