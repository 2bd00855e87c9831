"""DDP's buckets, rule by rule. tests/jobs/test_bucket_layouts.py compares them with DDP itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlens.analyzers.whatif.buckets import MIB, BucketSettings, Parameter, buckets, first_buckets

KIB = 2**10


def layout(
    sizes: list[int], ready: list[int] | None = None, **settings: float | bool | tuple[float, ...]
) -> list[list[int]]:
    order = list(range(len(sizes)))[::-1] if ready is None else ready
    found = buckets([Parameter(size) for size in sizes], order, BucketSettings(**settings))  # type: ignore[arg-type]
    return [list(bucket) for bucket in found]


def test_without_a_cap_the_first_bucket_is_one_mib() -> None:
    assert layout([2 * MIB] * 24) == [[23], list(range(22, 9, -1)), list(range(9, -1, -1))]


def test_a_cap_of_25_is_not_the_default() -> None:
    assert layout([2 * MIB] * 24, bucket_cap_mb=25) == [list(range(23, 10, -1)), list(range(10, -1, -1))]


def test_a_bucket_closes_when_it_has_reached_its_cap_not_before() -> None:
    assert layout([2 * MIB] * 4, bucket_cap_mb=5) == [[3, 2, 1], [0]]
    assert layout([2 * MIB] * 4, bucket_cap_mb=4) == [[3, 2], [1, 0]]


@pytest.mark.parametrize(
    ("cap_mb", "expected"),
    [(0, [[3], [2], [1], [0]]), (0.001, [[3], [2], [1], [0]]), (1e6, [[3, 2, 1, 0]])],
)
def test_caps_below_one_tensor_and_above_the_model(cap_mb: float, expected: list[list[int]]) -> None:
    assert layout([MIB] * 4, bucket_cap_mb=cap_mb) == expected


def test_the_cap_is_cut_to_whole_bytes() -> None:
    assert layout([20_971, 20_971], bucket_cap_mb=0.02) == [[1], [0]]  # 0.02 MiB are 20971.52 bytes


def test_the_order_is_that_in_which_gradients_became_ready() -> None:
    assert layout([MIB] * 4, ready=[2, 0, 3, 1], bucket_cap_mb=2) == [[2, 0], [3, 1]]


def test_the_list_gives_each_bucket_its_cap_and_the_last_one_to_all_others() -> None:
    assert layout([MIB] * 8, bucket_cap_mb_list=(1, 3, 2)) == [[7], [6, 5, 4], [3, 2], [1, 0]]
    assert layout([MIB] * 3, bucket_cap_mb_list=(1,), bucket_cap_mb=3) == [[2], [1], [0]]


def test_the_last_buckets_cap_turns_the_order_inside_each_bucket_too() -> None:
    assert layout([MIB] * 5, last_bucket_cap=True, bucket_cap_mb=2) == [[4], [2, 3], [0, 1]]
    small_last = layout([2 * MIB] * 15, last_bucket_cap=True)
    assert small_last == [[14], list(range(1, 14)), [0]]


def test_finding_unused_parameters_keeps_the_order_of_registration() -> None:
    found = {"find_unused_parameters": True, "bucket_cap_mb": 2}
    assert layout([MIB] * 5, ready=[0, 3, 1, 4, 2], **found) == [[4], [2, 3], [0, 1]]
    assert layout([MIB] * 5, ready=[0, 3, 1, 4, 2], static_graph=True, **found) == [[0, 3], [1, 4], [2]]
    assert layout([MIB] * 5, ready=[], find_unused_parameters=True) == [[1, 2, 3, 4], [0]]


def test_with_a_static_graph_parameters_without_gradients_come_last() -> None:
    assert layout([MIB] * 5, ready=[3, 1], static_graph=True, bucket_cap_mb=2) == [[3, 1], [0, 2], [4]]


def test_frozen_parameters_are_in_no_bucket() -> None:
    parameters = [Parameter(MIB), Parameter(MIB, trainable=False), Parameter(MIB)]
    settings = BucketSettings(bucket_cap_mb=2)
    assert buckets(parameters, [2, 0], settings) == ((2, 0),)
    assert first_buckets(parameters, settings) == ((0, 2),)


def test_each_dtype_and_device_fills_a_bucket_of_its_own() -> None:
    kinds = [("float32", "cpu"), ("bfloat16", "cpu"), ("float32", "cuda:0")]
    parameters = [Parameter(KIB, *kinds[place % 3]) for place in range(12)]
    settings = BucketSettings(bucket_cap_mb_list=(1 / 1024, 3 / 1024))
    assert buckets(parameters, range(12), settings) == ((0,), (1,), (2,), (3, 6, 9), (4, 7, 10), (5, 8, 11))


def test_what_is_left_over_comes_in_the_order_of_a_hash_table() -> None:
    """As torch 2.11 and 2.13 have it on Linux: newest first, but before one whose slot of the table it shares."""
    four = [Parameter(KIB, dtype) for dtype in ("float32", "float16", "float64", "bfloat16")]
    assert buckets(four, range(4), BucketSettings()) == ((3,), (2,), (1,), (0,))
    sharing = [Parameter(KIB), Parameter(KIB, "float16"), Parameter(KIB, "bfloat16", "meta")]
    assert buckets(sharing, range(3), BucketSettings()) == ((1,), (2,), (0,))


def test_a_sparse_gradient_has_a_bucket_of_its_own_at_once() -> None:
    parameters = [Parameter(KIB), Parameter(KIB, sparse=True), Parameter(KIB)]
    assert buckets(parameters, [2, 1, 0], BucketSettings()) == ((1,), (2, 0))


def test_only_a_static_graph_or_not_looking_for_unused_parameters_rebuilds() -> None:
    assert BucketSettings().rebuilds
    assert BucketSettings(static_graph=True, find_unused_parameters=True).rebuilds
    assert not BucketSettings(find_unused_parameters=True).rebuilds


@pytest.mark.parametrize("ready", [[0, 0], [2], [1], [-1]])
def test_an_order_that_cannot_be_is_refused(ready: list[int]) -> None:
    with pytest.raises(ValueError, match="ready_order"):
        buckets([Parameter(KIB), Parameter(KIB, trainable=False)], ready, BucketSettings())


def test_no_parameter_no_bucket() -> None:
    assert buckets([], [], BucketSettings()) == ()


@given(st.data())
def test_every_trainable_parameter_is_in_one_bucket_which_overshoots_by_one_at_most(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4 * KIB), min_size=1, max_size=30))
    cap = data.draw(st.integers(1, 8))
    order = data.draw(st.permutations(range(len(sizes))))
    found = layout(sizes, order, bucket_cap_mb=cap / KIB)
    assert [index for bucket in found for index in bucket] == order
    for bucket in found[:-1]:
        filled = sum(sizes[index] for index in bucket)
        assert filled >= cap * KIB > filled - sizes[bucket[-1]]
