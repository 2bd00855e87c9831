"""Blocking jobs whose steps scatter, each like the one before it, by known amounts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from blocking_job import BlockingJob
from numpy.typing import NDArray
from synthetic import MS, write_run

from commlens.analyzers.comparison import Side, side
from commlens.analyzers.stages import examine
from commlens.trace import open_run

STEPS = 42  # two of them are warm-up


def scattered(random: np.random.Generator, count: int, kept: float) -> NDArray[np.float64]:
    """Normal noise of variance 1 in which each value keeps a share of the one before."""
    fresh = random.normal(size=count + 50)
    found = fresh.copy()
    for place in range(1, count + 50):
        found[place] = kept * found[place - 1] + np.sqrt(1 - kept**2) * fresh[place]
    return found[50:]


def noisy_job(
    seed: int, slower: float = 1.0, noise: float = 0.01, kept: float = 0.3, steps: int = STEPS, ranks: int = 2
) -> BlockingJob:
    """Steps of about 91 ms: two collectives of 3 ms, 40 ms of work before each, which all ranks find equally hard.

    Args:
        seed: of the noise.
        slower: factor of the work.
        noise: of the work, as a share of it; half as much again is each rank's own.
        kept: how much a step is like the one before, 0..1.
        steps: with the two of warm-up.
        ranks: of the job.
    """
    random = np.random.default_rng(seed)
    shared = np.stack([scattered(random, steps, kept) for _ in range(2)], axis=1)
    own = random.normal(size=(ranks, steps, 2))
    work = np.round(40 * MS * slower * (1 + noise * (shared + 0.5 * own))).astype(np.int64)
    return BlockingJob(work, np.full(2, 3 * MS), bytes=[4096, 8192])


def side_of(path: Path, job: BlockingJob) -> Side:
    """Write a job down, and look at it."""
    return side(examine(open_run(write_run(path, job.truths()))))
