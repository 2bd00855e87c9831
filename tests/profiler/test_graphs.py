"""CUDA graphs are noticed: how many, how often they run, and how many collectives they hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from commlens.profiler import graphs
from commlens.profiler.clock import now
from commlens.profiler.slots import ROW


class Graph:
    """What torch's has, for a machine without CUDA."""

    def __init__(self) -> None:
        self.replayed = 0

    def capture_begin(self, pool: object = None, *, mode: str = "global") -> str:
        return mode

    def capture_end(self) -> None:
        pass

    def replay(self) -> None:
        self.replayed += 1


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Graph]]:
    made = type("CUDAGraph", (Graph,), dict(vars(Graph)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", made)
    monkeypatch.setattr(graphs, "_graphs", None)
    yield made


def rows(*events: tuple[int, int]) -> np.ndarray:
    found = np.zeros(len(events), ROW)
    found["event"], found["issued_ns"] = [each[0] for each in events], [each[1] for each in events]
    return found


def test_captures_replays_and_what_is_captured_are_counted(graph: type[Graph]) -> None:
    seen, before = graphs.watch(), now()
    assert graphs.watch() is seen
    assert seen.described() is None
    one = graph()
    assert one.capture_begin(mode="relaxed") == "relaxed"
    inside = now()
    assert seen.see(rows((1, before - 1), (2, inside)))  # the capture is still under way
    one.capture_end()
    for _ in range(5):
        one.replay()
    assert seen.see(rows((2, inside), (3, inside), (4, now())))  # row 2 once more, with its wait
    assert not seen.see(rows((5, now())))
    assert seen.described() == {"captured": 1, "replays": 5, "collectives_captured": 2}
    assert one.replayed == 5


@pytest.mark.parametrize("absent", ["CUDAGraph", "cuda", "replay"])
def test_a_torch_that_lacks_them_is_left_alone(
    graph: type[Graph], monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    if absent == "replay":
        monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace())
    elif absent == "cuda":
        monkeypatch.delattr(torch, "cuda")
    else:
        monkeypatch.delattr(torch.cuda, "CUDAGraph")
    assert graphs.watch().described() is None
    assert not graphs.is_capturing()
