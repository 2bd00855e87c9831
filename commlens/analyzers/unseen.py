"""Ranks and steps of which nothing is known, in words: those left out on purpose are not missing."""

from __future__ import annotations

from commlens.analyzers.abstentions import left_out_words, name_ranks
from commlens.analyzers.report import RunFacts, StepFacts


def unseen(run: RunFacts) -> str | None:
    """ "nothing is known of rank 3; 63 of 64 ranks were left out on purpose (...)"; None where all were recorded."""
    parts = [f"nothing is known of {name_ranks(run.ranks_missing)}"] if run.ranks_missing else []
    if run.ranks_sampled_out:
        parts.append(left_out_words(len(run.ranks_sampled_out), run.world_size, run.sampled_ranks))
    return "; ".join(parts) or None


def steps_out(steps: StepFacts) -> str | None:
    """ "980 left out on purpose (COMMLENS_STEPS=::50)"; None where all were recorded."""
    return (
        f"{steps.sampled_out:,} left out on purpose (COMMLENS_STEPS={steps.sampled_steps})"
        if steps.sampled_out
        else None
    )
