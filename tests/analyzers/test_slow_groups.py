"""What to look at where one of several like groups is slow: within a host no cable, and commands that can be run."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

import commlens
from commlens import Finding

STEPS, STEP_MS, BYTES = 20, 100, 1_000_000


def slow_pair(path: Path, hosts: tuple[str, ...]) -> Finding:
    """Three pairs of ranks that all-reduce alike, the last in 60 ms and the others in 20."""
    truths = {}
    for rank, host in enumerate(hosts):
        pair, took = rank // 2, 60 if rank >= 4 else 20
        rows, phases = [], []
        for step in range(STEPS):
            t = START + step * STEP_MS * MS
            begun, done = t + 20 * MS, t + (20 + took) * MS
            times = (begun, done, begun, begun, done - begun)
            rows.append(Collective(*times, group=str(pair + 1), in_bytes=BYTES, out_bytes=BYTES, seq=step))
            phases += [Phase("backward", t, t + 90 * MS), Phase("optimizer", t + 90 * MS, t + STEP_MS * MS, "SGD")]
        groups = [{"name": str(n + 1), "ranks": [2 * n, 2 * n + 1], "size": 2, "workers": 2} for n in range(3)]
        truths[rank] = RankTruth(rows, phases, info={"groups": groups, "boot_id": host, "host": host})
    report = commlens.analyze(commlens.open_run(write_run(path, truths)))
    (found,) = (each for each in report.findings if each.id in ("slow-link", "slow-group"))
    return found


@pytest.mark.parametrize(
    ("hosts", "id", "says", "not_says"),
    [
        ("aaaaaa", "slow-group", "bound to cores, memory and devices", "cable"),
        ("ababab", "slow-link", "cable", "bound to cores"),
    ],
)
def test_what_to_look_at(tmp_path: Path, hosts: str, id: str, says: str, not_says: str) -> None:
    path = tmp_path / "run"
    finding = slow_pair(path, tuple(hosts))
    (action,) = finding.actions
    assert finding.id == id
    assert says in action.text and not_says not in action.text
    assert action.verify is not None
    assert action.verify.partition(";")[0] == f"commlens calibrate {path} -- torchrun train.py"
    told = {each.name: each.value for each in finding.evidence}
    (whole,) = (name for name in told if name.startswith("all_reduce of 1.0 MB in group 3"))
    measure = "median" if len(set(hosts)) == 1 else "shortest"  # two hosts' clocks are too unsure for a transfer
    assert whole.endswith(f", transfer of the usual collective ({measure} over its ranks)") and told[whole] == 60
    assert told["three quarters of these take longer, three quarters of the like less"] == 60
