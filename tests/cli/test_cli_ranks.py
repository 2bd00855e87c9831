"""`commlens report --by` and `--ranks`: ranks together, and single ones, on demand."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import commlens
from ui.runs_to_show import faulty


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty(tmp_path_factory.mktemp("ranks") / "run", ranks=16, steps=5, collectives=8)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--by", "host"), ["2 hosts", "node-000", "node-001", "causes"]),
        (("--by", "group"), ["11 process groups", "tp0", "dp7", "rank 5"]),
        (("--by", "quantile"), ["0-10 %", "90-100 %"]),
        (("--ranks", "5,node-001"), ["9 ranks", "node-000", "Collectives of their", "tp1"]),
        (("--ranks", "group=dp1"), ["2 ranks", "dp1"]),
        (("--ranks", "0-3", "--by", "host"), ["1 host", "node-000"]),
    ],
)
def test_tables_instead_of_the_report(
    arguments: tuple[str, ...],
    expected: list[str],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert commlens(monkeypatch, "report", run, *arguments) == 0
    out, err = capsys.readouterr()
    assert err == "" and "Findings" not in out
    for words in expected:
        assert words in out
    assert max(len(line) for line in out.splitlines()) <= 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--ranks", "99"), "of '99' no rank was recorded: give numbers"),
        (("--by", "host", "--format", "json"), "leave out --format"),
        (("--ranks", "1", "-o", "never"), "leave out --format, --output"),
        (("--ranks", "1", "--explain", "straggler-rank"), "--explain"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...],
    expected: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert commlens(monkeypatch, "report", run, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and expected in err and err.count("\n") == 1
