"""What the report says of aggregates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AggregateLine:
    """Collectives of one group, operation and size, over all ranks and stretches.

    Attributes:
        group: torch's name of the process group.
        group_desc: its description.
        members: ranks in it; None where not told.
        recorded: of those, ranks whose aggregates have it.
        op: torch's spelling.
        dtype: of the elements.
        bytes: nccl-tests' message size; None where there are too many sizes to tell them apart.
        count: collectives (of one rank each).
        total_bytes: of those, the sum of the larger of what went in and came out.
        count_per_step: of a rank; None where steps are not known.
        ended: share of them whose end was seen, 0..1.
        duration_ms_mean: issue to end, which includes waiting for late ranks; None where no end was seen.
        duration_ms_p50: from the histogram, right to 9 %; the warm-up left out where anything came after it.
        duration_ms_p95: likewise.
        duration_ms_longest: of one.
        blocked_ms_mean: how long the calling thread stood still for one.
        compared: share of the collectives that every recorded member has in the same stretches, 0..1; None of
            operations that do not need everyone.
        transfer_ms_at_most: mean of the member with the shortest mean; None where nothing is compared.
        wait_ms_at_least: mean of all members beyond that; likewise.
        last_rank: member that has the shortest mean most often; likewise.
        last_share: share of the stretches in which it has, 0..1; likewise.
    """

    group: str
    group_desc: str
    members: int | None
    recorded: int
    op: str
    dtype: str
    bytes: int | None
    count: int
    total_bytes: int
    count_per_step: float | None
    ended: float
    duration_ms_mean: float | None
    duration_ms_p50: float | None
    duration_ms_p95: float | None
    duration_ms_longest: float | None
    blocked_ms_mean: float | None
    compared: float | None
    transfer_ms_at_most: float | None
    wait_ms_at_least: float | None
    last_rank: int | None
    last_share: float | None


@dataclass(frozen=True)
class AggregateRank:
    """One rank's sums.

    Attributes:
        rank: global rank.
        host: name of its host.
        collectives: issued.
        step_ms: mean step; None where steps are not known.
        blocked_ms_per_step: how long its threads stood still for collectives; likewise.
        wait_ms_per_step_at_least: standing still for late ranks, of what is compared; None where nothing is.
        message_wait_ms_per_step: how long it stood still for messages to come, beyond the shortest of their size on any
            rank; None without any.
    """

    rank: int
    host: str | None
    collectives: int
    step_ms: float | None
    blocked_ms_per_step: float | None
    wait_ms_per_step_at_least: float | None
    message_wait_ms_per_step: float | None


@dataclass(frozen=True)
class Aggregates:
    """What is known of steps that were recorded as sums only (COMMLENS_QUOTA).

    Attributes:
        ranks: how many have such steps.
        only: nothing else was recorded of the run's collectives.
        from_step: the first such step on any rank; None where it is not told.
        stepless: nothing is of a later step than the job's first two, as where steps are not known: what lines tell is
            of all of it.
        steps: whole steps in the sums, the most of any rank, the first two of the job left out.
        collectives: issued, over all ranks.
        step_ms_mean: over ranks and steps; None where steps are not known.
        step_ms_p50: from the histogram, likewise: right to 9 %.
        step_ms_p95: likewise.
        dropped: rows that make no sense and were left out.
        definition: what the bounds rest on.
        per_rank: ascending by rank.
        lines: those in which ranks wait longest first.
    """

    ranks: int
    only: bool
    from_step: int | None
    stepless: bool
    steps: int
    collectives: int
    step_ms_mean: float | None
    step_ms_p50: float | None
    step_ms_p95: float | None
    dropped: int
    definition: str
    per_rank: tuple[AggregateRank, ...]
    lines: tuple[AggregateLine, ...]


DEFINITION = (
    "from sums, not from single collectives: over a stretch of steps the member with the shortest mean duration is the"
    " one waited for; its mean is the transfer at most, what others took beyond it is their waiting at least"
)
