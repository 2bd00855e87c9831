"""COMMLENS_RANKS, COMMLENS_STEPS and COMMLENS_QUOTA as people write them."""

from __future__ import annotations

import pytest

from commlens.profiler import limits, live
from commlens.profiler.gradients import SAMPLED


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


def test_steps_that_are_chosen_leave_no_rank_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.RANKS, raising=False)
    monkeypatch.delenv(limits.STEPS, raising=False)
    assert (limits.sampled_steps(), limits.chosen_steps()) == (None, None)
    monkeypatch.setenv(limits.STEPS, " 10:20,100:110 ")
    assert limits.sampled_steps() == "10:20,100:110"
    assert limits.chosen_steps() == (range(10, 20), range(100, 110))
    assert all(limits.is_recorded(rank, 4) for rank in range(4))
    monkeypatch.setenv(limits.RANKS, "::2")
    assert [limits.is_recorded(rank, 4) for rank in range(4)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("said", "why"),
    [("every 50", "neither a number nor a slice"), ("::0", "a step of 0"), ("20:10", "names no step")],
)
def test_a_choice_of_no_step_records_nothing_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, why: str
) -> None:
    monkeypatch.delenv(limits.RANKS, raising=False)
    monkeypatch.setenv(limits.STEPS, said)
    assert not any(limits.is_recorded(rank, 4) for rank in range(4))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commlens: COMMLENS_STEPS={said}") and why in line and "nothing is recorded" in line


def test_gradients_are_sampled_in_chosen_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual steps are powers of two, which a slice such as ::50 never meets."""
    assert limits.gradient_steps(None, SAMPLED) == SAMPLED
    monkeypatch.setenv(limits.STEPS, "::50")
    assert sorted(limits.gradient_steps(limits.chosen_steps(), SAMPLED))[:5] == [50, 100, 150, 300, 550]
    monkeypatch.setenv(limits.STEPS, "7:9")
    assert limits.gradient_steps(limits.chosen_steps(), SAMPLED) == {7, 8}
