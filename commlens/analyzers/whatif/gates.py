"""When the simulator does not predict, and what it says with a prediction that rests on weak ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.numerals import plain
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.predicted import Baseline
from commlens.analyzers.whatif.sharing import alone
from commlens.analyzers.whatif.steady import simulate

UNMEASURED = "the transfers of some collective could not be measured"
MISFIT = 0.05  # of the step: a model that replays the recorded configuration worse predicts nothing
NOISY = 0.1  # standard deviation over median of the steps
_NOTHING = 0.002  # of the step
_FACTOR = 2.0  # messages beyond the measured sizes by more than this are extrapolated


def no_model(ranks: Sequence[RankFacts], joined: Joined, missing: Sequence[int]) -> str | None:
    """Why a run cannot be simulated at all, None where it may be."""
    if missing:
        return (
            f"{len(missing)} of {len(missing) + len(ranks)} ranks {'was' if len(missing) == 1 else 'were'} not recorded"
        )
    if len(ranks) < 2:
        return "only one rank was recorded"
    for facts in ranks:
        if facts.lanes is not None:
            return "compute of devices was recorded: only steps timed on the host are simulated yet"
        if facts.refusal is not None:
            return f"rank {facts.rank} has no time budget: {facts.refusal}"
    return "clocks contradict one another" if joined.clocks.contradiction else None


def no_prediction(baseline: Baseline) -> str | None:
    """Why the model of a run is not to be trusted, None where it is."""
    if not np.isfinite(baseline.simulated_ns).all():
        return UNMEASURED
    if baseline.misfit > MISFIT:
        simulated, measured = baseline.replayed_ns / 1e6, baseline.measured_ns / 1e6
        return (
            f"the recorded configuration itself is simulated as {simulated:.1f} ms a step and took {measured:.1f} ms:"
            f" {100 * baseline.misfit:.0f} % off, more than {100 * MISFIT:.0f} %"
        )
    return None


def too_noisy(baseline: Baseline, low_ms: float, high_ms: float) -> str | None:
    """Why one prediction drowns in the noise of the steps, None where it does not."""
    if baseline.variation <= NOISY or not low_ms <= 0 <= high_ms:
        return None
    return f"steps vary by {100 * baseline.variation:.0f} %, and the gain is not sure to be more than that leaves open"


def crowded(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Whether compute and Gloo's threads compete for cores; None where they do not, or nothing is known of it."""
    machines: dict[str, list[tuple[int, int]]] = {}
    for facts in ranks:
        info = infos.get(facts.rank, {})
        threads = str((info.get("environment") or {}).get("OMP_NUM_THREADS", "1"))
        if isinstance(info.get("cpus"), int) and any(group.get("workers") for group in info.get("groups") or []):
            own = 1 + (int(threads) if threads.isdigit() else 1)  # compute, and one that moves bytes
            machines.setdefault(facts.who.machine, []).append((own, info["cpus"]))
    for asked in machines.values():
        busy, cpus = sum(own for own, _ in asked), min(cpus for _, cpus in asked)
        if busy > cpus:
            return (
                f"{len(asked)} ranks have {busy} threads that compute or move bytes, and share {cpus} cores:"
                " what overlaps may slow down, as intervals allow for"
            )
    return None


def straggler_first(joined: Joined) -> str | None:
    """Whether ranks stand still more for late ones than for bytes."""
    seen = [each for each in joined.exposed if each.wait.size]
    if not seen:
        return None
    wait = float(np.mean([np.median(each.wait) for each in seen]))
    transfer = float(np.mean([np.median(each.transfer) for each in seen]))
    if wait <= transfer or wait <= 0:
        return None
    return (
        f"ranks stand still {wait / 1e6:.1f} ms a step for late ranks and {transfer / 1e6:.1f} ms for bytes:"
        " look at the late ranks first"
    )


def extrapolated(model: Model) -> str | None:
    """Whether messages are sent whose size is far from every measured one."""
    sizes = [(node.bytes / max(node.messages, 1), node.lines) for node in model.nodes if node.bytes]
    lines = [(size, line) for size, lines in sizes for line in lines if isinstance(line, Line)]
    far = [line for size, line in lines if not line.low_bytes / _FACTOR <= size <= line.high_bytes * _FACTOR]
    if not far:
        return None
    low, high = far[0].low_bytes / 1e6, far[0].high_bytes / 1e6
    return f"some messages are far from the measured sizes ({plain(low)} to {plain(high)} MB): intervals twice as wide"


def unsure_sharing(baseline: Baseline, model: Model) -> str | None:
    """Whether the prediction hangs on how much collectives at once slow each other down, which was not seen."""
    if all(link.sharing.measured for link in model.links):
        return None
    first = baseline.first
    links = tuple(replace(link, sharing=link.sharing if link.sharing.measured else alone()) for link in model.links)
    apart = np.median(simulate(replace(model, links=links), first))
    if abs(apart - np.median(simulate(model, first))) < _NOTHING * baseline.measured_ns:
        return None
    return "how much two collectives at once slow each other down was not seen: by half, or not at all"
