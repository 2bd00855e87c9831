"""Links in the text of a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import commlens
from counted_job import link, two_hosts
from synthetic import write_run


def printed(
    path: Path, job: object, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    write_run(path, job.truths())  # type: ignore[attr-defined]
    assert commlens(monkeypatch, "report", path, *more) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_links_fit_and_say_what_they_carried(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    links = [link("eth0"), link("mlx5_0/1", "infiniband", 25.0), link("docker0", gb_s=None)]
    job = two_hosts(links=links, carries={"eth0": 0.0, "mlx5_0/1": 1.0, "docker0": 0.0})
    lines = printed(tmp_path, job, width, monkeypatch, capsys)
    assert max(map(len, lines)) <= width
    section = lines[next(at for at, line in enumerate(lines) if line.startswith("Links (GB/s")) :]
    rows = [line.split() for line in section if line.startswith(("  a ", "  b "))]
    assert [row[:2] for row in rows] == [["a", "mlx5_0/1"], ["b", "mlx5_0/1"]]
    assert all("0.833" in row for row in rows)
    assert not any("docker0" in line or "eth0" in line for line in section)


def test_a_link_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    full = two_hosts(transfer_ms=100.0, links=[link("eth0", gb_s=0.21)])
    page = " ".join(printed(tmp_path, full, 80, monkeypatch, capsys, "--explain", "slow-link"))
    assert "are full: 0.2 of 0.21 GB/s" in page
    assert "link.bandwidth=x2" in page


def test_silent_links_are_shown_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(tmp_path, two_hosts(carries={"eth0": 0.0}), 100, monkeypatch, capsys)
    assert sum(line.endswith("idle?") for line in lines) == 2
    assert "reads zero, which is idle or not supported: eth0 (ethernet)" in " ".join(lines)
