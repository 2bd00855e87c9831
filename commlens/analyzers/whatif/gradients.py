"""The gradients of a model that DDP reduces, and when they are ready."""

from __future__ import annotations

from dataclasses import dataclass

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.buckets import Buckets, BucketSettings, Parameter
from commlens.trace.changes import Hook


@dataclass(frozen=True)
class Round:
    """One backward in which DDP reduces gradients.

    Attributes:
        knots_ns: own time at the backward's start and at the launch of each recorded bucket, shape
            (buckets + 1, ranks, steps).
    """

    knots_ns: Floats


@dataclass(frozen=True)
class Gradients:
    """The gradients that DDP reduces.

    Attributes:
        parameters: of the model, in the order of registration.
        order: those with a gradient as they became ready on rank 0.
        place: when each parameter's gradient was ready, as a place between knots (1.5: halfway between the first
            and the second bucket's launch), shape (ranks, parameters).
        settings: of DDP in the recorded run.
        layout: recorded buckets.
        rounds: backwards of a step in which they are reduced.
        item_bytes: bytes that an element takes on the wire, None where it is the parameter's own dtype.
        refusal: why buckets cannot be laid out anew, None where they can.
        view: gradients lie in the buckets (gradient_as_bucket_view); None where that is not known.
        hook: of DDP that compresses them, None where none does.
        measured: ready times were recorded; else they were interpolated between bucket launches.
    """

    parameters: tuple[Parameter, ...]
    order: tuple[int, ...]
    place: Floats
    settings: BucketSettings
    layout: Buckets
    rounds: tuple[Round, ...]
    item_bytes: int | None
    refusal: str | None
    measured: bool
    view: bool | None = None
    hook: Hook | None = None
