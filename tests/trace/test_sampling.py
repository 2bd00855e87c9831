"""COMMLENS_RANKS: which ranks are recorded, and that those left out on purpose are not called missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import training_rank, write_run

from commlens import open_run
from commlens.trace.sampling import EVERY, chosen, is_chosen, left_out, next_chosen, parse_choice


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("3", [3]),
        ("0,8,16", [0, 8, 16]),
        ("0:8", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("0:40:16", [0, 16, 32]),
        ("::16", [0, 16, 32]),
        ("36:", [36, 37, 38, 39]),
        ("0:2, 30:40:5", [0, 1, 30, 35]),
        (":3,2,99", [0, 1, 2]),
        (":", list(range(40))),
    ],
)
def test_numbers_and_slices(text: str, ranks: list[int]) -> None:
    choice = parse_choice(text)
    assert np.flatnonzero(chosen(choice, np.arange(40))).tolist() == ranks
    assert [rank for rank in range(40) if is_chosen(choice, rank)] == ranks
    assert left_out(text, 40) == [rank for rank in range(40) if rank not in ranks]


@pytest.mark.parametrize(
    "text", ["", "-1", "0:-1", "a", "0-8", "1,,2", "0:8:0", "1.5", "0:1:2:3", "²", "9" * 13, "0;8"]
)
def test_what_is_no_choice(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|step of 0"):
        parse_choice(text)
    assert left_out(text, 8) == []


@given(st.text(max_size=20))
def test_any_text_is_a_choice_or_refused_in_one_line(text: str) -> None:
    try:
        choice = parse_choice(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert chosen(choice, np.arange(5)).tolist() == [is_chosen(choice, rank) for rank in range(5)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(0, 60),
)
def test_the_next_one_chosen(parts: list[tuple[int, int, int]], number: int) -> None:
    choice = tuple(range(*part) for part in parts)
    later = [each for each in range(number, 100) if is_chosen(choice, each)]
    assert next_chosen(choice, number) == (later[0] if later else None)


def test_numbers_of_any_size_are_chosen() -> None:
    steps = np.array([0, 50, 2**31 - 1], np.int32)
    assert chosen(parse_choice("::50"), steps).tolist() == [True, True, False]
    assert chosen(parse_choice("999999999999:"), steps).tolist() == [False] * 3
    assert next_chosen(parse_choice("7:"), EVERY - 1) == EVERY - 1


@pytest.mark.parametrize("said", [None, 3, ["0"], {}, "nonsense"])
def test_a_damaged_run_leaves_nobody_out(said: object) -> None:
    assert left_out(said, 8) == []


def sampled(path: Path, ranks: list[int], choice: str, size: int) -> Path:
    write_run(path, {rank: training_rank(3) for rank in ranks}, size)
    told = (path / "run.json").read_text().replace('"backend"', f'"sampled_ranks": "{choice}", "backend"', 1)
    (path / "run.json").write_text(told)
    return path


def test_ranks_left_out_on_purpose_are_not_missing(tmp_path: Path) -> None:
    run = open_run(sampled(tmp_path, [0, 4], "::4", 12))
    assert run.absent == [rank for rank in range(12) if rank not in (0, 4)]
    assert run.missing == [8]
    assert run.sampled_out == [1, 2, 3, 5, 6, 7, 9, 10, 11]


def test_a_rank_that_was_recorded_all_the_same_is_there(tmp_path: Path) -> None:
    run = open_run(sampled(tmp_path, [0, 1], "0", 3))
    assert (list(run.ranks), run.missing, run.sampled_out) == ([0, 1], [], [2])
