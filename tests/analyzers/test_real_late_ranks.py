"""Who is waited for in real traces whose answer is known (`../shared/traces`, with its README)."""

from __future__ import annotations

from pathlib import Path

import pytest

from commlens import Report, analyze, open_run

TRACES = Path(__file__).parents[3] / "shared" / "traces"
pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not beside this repository")

# Injected: a sleep of the host on rank 2 before the forward all-to-all. The gap that the main thread shows
# is the sleep itself, measured in the traces: 1001.2 and 20.2 ms.
SLEEPS_MS = {
    "torchrec-dlrm-v100x4-sleep": 1001.2,
    "torchrec-dlrm-v100x4-opt2-slow": 1001.2,
    "torchrec-dlrm-v100x4-opt2-fast": 20.2,
    "torchrec-dlrm-v100x4-opt5": 20.2,
    "torchrec-dlrm-v100x4-qcomm": 20.2,
}


def report_of(name: str, path: Path) -> Report:
    return analyze(open_run(TRACES / name / "*.gz"))


@pytest.mark.parametrize("name", SLEEPS_MS)
def test_the_sleeping_rank_is_named_with_its_cause_and_size(name: str, tmp_path: Path) -> None:
    report = report_of(name, tmp_path)
    finding = report.findings[0]
    assert (finding.id, finding.ranks) == ("straggler-rank", (2,))
    cause = next(each for each in finding.evidence if each.name == "late launch")
    assert cause.value == pytest.approx(SLEEPS_MS[name], rel=0.05)


def test_two_ranks_of_megatron_are_last_and_most_of_the_others_time_is_waiting(tmp_path: Path) -> None:
    report = report_of("megatron-tp8-a100", tmp_path)
    assert report.findings[0].ranks == (0, 6)
    last = {line.rank: line.arrives_last for line in report.ranks}
    assert last == {0: 32, 1: 4, 2: 4, 3: 15, 4: 0, 5: 1, 6: 28, 7: 0}  # as hta_reference.json's cross_rank_check
    kernels_ms = {1: 481.3, 2: 413.3, 3: 472.4, 4: 495.2, 5: 490.9, 7: 481.9}
    for line in report.ranks:
        if line.rank in kernels_ms:
            assert line.wait_ms_per_step is not None
            assert 0.85 < line.wait_ms_per_step / kernels_ms[line.rank] < 1


def test_ranks_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    report = report_of("hta-sampled-a100-2of128", tmp_path)
    assert report.coverage.clock.refusal is not None
    assert "matched by order" in report.coverage.clock.refusal
    assert report.findings == ()
