"""Whether a recording is whole and sound, one thing wrong at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from healthy_run import ENVIRONMENT, INFO, LAST_NS, STEPS, rank, write_healthy
from synthetic import RankTruth, write_run

from commlens import open_run
from commlens.analyzers.health.recording import FACT, FAILURE, GOOD, WARNING, Health, examine_health, share_level
from commlens.analyzers.health.sights import GLOO_MESSAGES, GLOO_NATIVE, GLOO_SYNCHRONOUS, NCCL_BARE
from commlens.analyzers.settings.setting import BREAKS
from commlens.analyzers.stages import examine
from commlens.trace.schema import ALIVE_FILE, MISSING

SECOND = 1_000_000_000


def ended_by(error: str) -> dict[str, Any]:
    return {"how": "exception", "error": error, "ns": LAST_NS, "left_ns": LAST_NS}


def health(path: Path, after_s: float = 3600) -> Health:
    return examine_health(examine(open_run(path)), LAST_NS + int(after_s * SECOND))


def test_a_whole_recording_is_healthy(tmp_path: Path) -> None:
    found = health(write_healthy(tmp_path))
    assert found.healthy is True
    assert {topic: level for topic, level in found.levels.items() if level != GOOD} == {"size": FACT}
    assert found.differences == ()
    assert [each.ended for each in found.endings] == [True, True]
    assert [each.calls for each in found.sights] == [GLOO_NATIVE, GLOO_MESSAGES]
    assert found.shared == ENVIRONMENT


@pytest.mark.parametrize(
    ("second", "topic", "level", "healthy"),
    [
        (rank(end=None), "ending", FAILURE, False),
        (rank(end=ended_by("ValueError: planted")), "ending", FAILURE, False),
        (rank(end=ended_by("KeyboardInterrupt")), "ending", WARNING, True),
        (rank(end=None, gave_up={"error": "OSError: no space"}), "ending", FAILURE, False),
        (rank({"dropped": 2}), "dropped", FAILURE, False),
        (rank({"hook_ns": 16_000_000}), "cost", WARNING, True),
        (rank(hooks={**INFO["hooks"], "collectives": "not in this torch: reduce"}), "hooks", FAILURE, False),
        (rank(hooks={**INFO["hooks"], "backward": "no such hook"}), "hooks", WARNING, True),
        (rank(hooks={**INFO["hooks"], "forward": "no module"}), "hooks", FACT, True),
        (rank(collectives=7), "matched", WARNING, True),
        (rank(collectives=4), "matched", FAILURE, False),
    ],
)
def test_one_thing_is_wrong(tmp_path: Path, second: RankTruth, topic: str, level: str, healthy: bool) -> None:
    found = health(write_healthy(tmp_path, second))
    assert found.levels[topic] == level
    assert found.healthy is healthy


@pytest.mark.parametrize(("part", "level"), [(0, GOOD), (1, WARNING), (10, WARNING), (11, FAILURE)])
def test_a_share_is_good_then_a_warning_then_a_failure(part: int, level: str) -> None:
    assert share_level(part, 1000, 0, 0.01) == level
    assert share_level(0, 0, 0, 0.01) == GOOD


def test_a_rank_that_wrote_a_moment_ago_still_runs(tmp_path: Path) -> None:
    write_healthy(tmp_path, rank(end=None))
    running, silent = health(tmp_path, after_s=2), health(tmp_path, after_s=60)
    assert (running.levels["ending"], running.healthy) == (FACT, None)
    assert [each.running for each in running.endings] == [False, True]
    assert (silent.levels["ending"], silent.healthy) == (FAILURE, False)
    assert silent.endings[1].silent_s == pytest.approx(60)


@pytest.mark.parametrize(("sign_s", "running"), [(55, True), (20, False)])
def test_a_rank_that_only_computes_still_runs(tmp_path: Path, sign_s: int, running: bool) -> None:
    """Its recorder notes that it lives, though it issued nothing for a minute."""
    write_healthy(tmp_path, rank(end=None))
    (tmp_path / "rank-00001" / ALIVE_FILE).write_text(f"{LAST_NS + sign_s * SECOND:020d}\n")
    found = health(tmp_path, after_s=60)
    assert (found.endings[1].running, found.endings[1].signs) == (running, True)
    assert (found.levels["ending"] == FAILURE) is not running


def test_a_job_that_hung(tmp_path: Path) -> None:
    long_after = LAST_NS + 600 * SECOND
    stuck = rank({"time_ns": long_after}, end=None)
    last = replace(stuck.collectives[-1], completed_ns=MISSING, waited_ns=MISSING, blocked_ns=MISSING)
    left = rank({"time_ns": long_after}, collectives=STEPS - 1)
    write_run(tmp_path, {0: replace(stuck, collectives=[*stuck.collectives[:-1], last]), 1: left})
    found = health(tmp_path)
    assert found.hangs == ("hang",)
    assert (found.levels["ending"], found.healthy) == (FAILURE, False)


def test_missing_and_damaged_ranks(tmp_path: Path) -> None:
    write_healthy(tmp_path / "missing", world_size=3)
    assert health(tmp_path / "missing").levels["ranks"] == FAILURE
    write_healthy(tmp_path / "damaged")
    (tmp_path / "damaged" / "rank-00001" / "rank.json").write_text("{")
    assert health(tmp_path / "damaged").levels["ranks"] == FAILURE


def test_a_table_that_is_cut_short(tmp_path: Path) -> None:
    table = write_healthy(tmp_path) / "rank-00001" / "phases.arrows"
    table.write_bytes(table.read_bytes()[:-60])
    assert health(tmp_path).levels["tables"] == WARNING


def test_clocks_that_contradict_each_other(tmp_path: Path) -> None:
    truth = rank()
    times = ("issued_ns", "started_ns", "completed_ns", "waited_ns")
    early = [replace(row, **{name: getattr(row, name) - SECOND for name in times}) for row in truth.collectives]
    write_healthy(tmp_path, replace(truth, collectives=early))
    assert health(tmp_path).levels["clocks"] == FAILURE


def test_one_rank_is_compared_with_nobody(tmp_path: Path) -> None:
    write_run(tmp_path, {0: rank(groups=[])}, 1)
    found = health(tmp_path)
    assert (found.levels["clocks"], found.levels["matched"], found.compared) == (FACT, FACT, 1)


def test_nothing_recorded_cannot_be_judged(tmp_path: Path) -> None:
    nothing = RankTruth(info=INFO)
    write_run(tmp_path, {0: nothing, 1: nothing})
    found = health(tmp_path)
    assert (found.levels["collectives"], found.healthy) == (FACT, None)


def test_an_imported_run_has_no_hooks_and_no_end(tmp_path: Path) -> None:
    write_healthy(tmp_path, rank(imported="kineto"))
    half = health(tmp_path)
    assert half.recorded
    write_run(tmp_path / "all", {n: rank(imported="kineto") for n in (0, 1)})
    found = health(tmp_path / "all")
    assert (found.recorded, found.endings, found.sights) == (False, (), ())
    assert (found.levels["hooks"], found.levels["ending"], found.healthy) == (FACT, FACT, None)


@pytest.mark.parametrize("junk", [None, 3, "x", [3], [{}], {"a": 3}, {"a": None}])
def test_a_damaged_description_is_no_error(tmp_path: Path, junk: Any) -> None:
    names = (
        "environment",
        "interfaces",
        "links",
        "models",
        "cpus",
        "cores",
        "fix",
        "nccl_plugin",
        "torch",
        "groups",
        "hooks",
    )
    examined = examine(open_run(write_healthy(tmp_path)))
    examined.run.ranks[1].info.update(dict.fromkeys(names, junk))
    assert examine_health(examined, LAST_NS).levels["ranks"] == GOOD


def test_settings_are_told_with_the_ranks_that_have_them(tmp_path: Path) -> None:
    write_healthy(tmp_path, rank(environment={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "ib0"}))
    found = health(tmp_path)
    assert [(s.words, s.kind, ranks) for s, ranks in found.settings] == [
        ("OMP_NUM_THREADS=1", "noted", (0, 1)),
        ("GLOO_SOCKET_IFNAME=ib0", BREAKS, (1,)),
    ]
    assert found.shared == ENVIRONMENT


def test_the_least_able_rank_says_what_is_seen(tmp_path: Path) -> None:
    python = {**INFO["hooks"], "recorder": "dispatcher"}
    write_healthy(tmp_path / "gloo", rank(hooks=python))
    assert health(tmp_path / "gloo").sights[0].calls == GLOO_SYNCHRONOUS
    on_gpus = {"backend": "nccl", "device": "cuda", "groups": [{"name": "0", "ranks": [0, 1], "backend": "nccl"}]}
    write_run(tmp_path / "nccl", {0: rank(**on_gpus, nccl_plugin={"no_step": 0}), 1: rank(**on_gpus, nccl_plugin={})})
    found = health(tmp_path / "nccl")
    assert found.sights[0].calls == NCCL_BARE
    assert found.sights[0].blind
    assert found.gpus


def test_interfaces_are_chosen_on_each_of_several_hosts(tmp_path: Path) -> None:
    write_healthy(tmp_path / "one")
    assert health(tmp_path / "one").choices == ()
    write_healthy(tmp_path / "two", rank(boot_id="two", host="other"))
    assert [(host, choice.names) for host, choice in health(tmp_path / "two").choices] == [("node", ()), ("other", ())]
