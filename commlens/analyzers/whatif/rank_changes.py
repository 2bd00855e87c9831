"""Changes of what ranks do by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.model import Altered, Model


def remove_straggler(model: Model, value: bool) -> Altered:
    late = np.zeros(model.step_ns.shape[0], bool)
    late[list(model.late)] = True
    if not late.any() or late.all():
        return "no rank is always the one that others wait for"

    def even(own: Floats) -> Floats:
        """Late ranks as the others' median, where that is earlier, shape (..., ranks, steps)."""
        usual = np.median(own[..., ~late, :], axis=-2, keepdims=True)
        return np.where(late[:, None], np.minimum(own, usual), own)

    return _reworked(model, even).touching("wait")


def remove_imbalance(model: Model, value: bool) -> Altered:
    def even(own: Floats) -> Floats:
        return np.broadcast_to(own.mean(axis=-2, keepdims=True), own.shape)

    return _reworked(model, even).touching("wait")


def _reworked(model: Model, even: Callable[[Floats], Floats]) -> Model:
    """The model with other own times."""
    gradients = model.gradients
    if gradients is not None:
        rounds = tuple(replace(each, knots_ns=even(each.knots_ns)) for each in gradients.rounds)
        gradients = replace(gradients, rounds=rounds)
    low = even(model.low_ns)
    high = low if model.high_ns is model.low_ns else even(model.high_ns)
    return replace(model, low_ns=low, high_ns=high, gradients=gradients)
