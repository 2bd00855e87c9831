"""COMMLENS_RANKS and COMMLENS_QUOTA as people write them."""

from __future__ import annotations

import pytest

from commlens.profiler import limits, live


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_warned", set())
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("0", 0),
        ("200MB", 200_000_000),
        ("1.5 gb", 1_500_000_000),
        ("64kB", 64_000),
        ("12B", 12),
        ("4096", 4096),
        ("", None),
        (" ", None),
    ],
)
def test_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, size: int | None
) -> None:
    monkeypatch.setenv(limits.QUOTA, said)
    assert limits.quota_bytes() == size
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("said", ["-1", "lots", "10 MiB", "1e6", "MB", "5TB", "٣MB"])
def test_a_size_that_is_none_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    monkeypatch.setenv(limits.QUOTA, said)
    assert limits.quota_bytes() == limits.quota_bytes() == limits.DEFAULT_QUOTA
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commlens: COMMLENS_QUOTA={said}") and "200 MB" in line


def test_ranks_that_are_chosen_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.RANKS, raising=False)
    assert all(limits.is_recorded(rank, 4) for rank in range(4))
    monkeypatch.setenv(limits.RANKS, "1:4096:2")
    assert [limits.is_recorded(rank, 4) for rank in range(4)] == [False, True, False, True]


@pytest.mark.parametrize(("said", "why"), [("-1:", "neither a number nor a slice"), ("8:", "none of the ranks 0 to 3")])
def test_a_choice_of_nobody_says_so_once_for_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, why: str
) -> None:
    monkeypatch.setenv(limits.RANKS, said)
    assert not any(limits.is_recorded(rank, 4) for rank in range(4))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commlens: COMMLENS_RANKS={said}") and why in line and "nothing is recorded" in line
