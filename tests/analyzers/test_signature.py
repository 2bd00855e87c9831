"""Steps from the repeating signature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlens.analyzers.signature import repetition_starts


def starts(tokens: list[int]) -> list[int]:
    return repetition_starts(np.array(tokens, np.int64)).tolist()


def test_whole_repetitions_after_a_prologue_and_before_an_epilogue() -> None:
    assert starts([9, 8, 7] + [1, 2, 3, 4] * 6 + [5]) == [3, 7, 11, 15, 19, 23, 27]


def test_equal_layers_inside_a_step_are_not_steps() -> None:
    step = [1] * 30 + [2]
    assert starts(step * 10) == list(range(0, 310, 31))


def test_a_step_that_began_but_did_not_end_bounds_the_last_one() -> None:
    assert starts([1, 2, 3] * 5 + [1]) == [0, 3, 6, 9, 12, 15]


@pytest.mark.parametrize("tokens", [[], [1], [1, 2], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 1, 2, 3, 4, 5, 6]])
def test_nothing_repeats(tokens: list[int]) -> None:
    assert starts(tokens) == []


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(4, 30),
    st.lists(st.integers(10, 20), max_size=5, unique=True),
    st.lists(st.integers(30, 40), max_size=3, unique=True),
)
def test_a_planted_period_is_found(step: list[int], times: int, before: list[int], after: list[int]) -> None:
    repeated = step * times
    found = np.diff(starts(before + repeated + after))
    if len(repeated) <= len(before) + len(after):
        return
    assert found.size
    assert np.all(found == found[0])
    assert len(step) % found[0] == 0
