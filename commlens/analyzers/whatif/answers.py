"""Predictions as plain frozen data; `WhatIf.to_dict` is the contract of `commlens whatif --format json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from commlens.analyzers.report import Predicted


@dataclass(frozen=True)
class Scenario:
    """Changes and what they would gain; `predicted` is None where `abstention` says why.

    `set` are the changes as they are written, `ceiling_ms` is the most that changes of this kind could gain.
    """

    set: tuple[str, ...]
    predicted: Predicted | None
    ceiling_ms: float | None
    assumptions: tuple[str, ...]
    abstention: str | None


@dataclass(frozen=True)
class Replayed:
    """The recorded configuration, ms per step; `replayed_ms` is None where it could not be simulated."""

    measured_ms: float | None
    replayed_ms: float | None


@dataclass(frozen=True)
class WhatIf:
    """Predictions for a run; `abstention` says why there are none at all, `notes` what to know before trusting them."""

    baseline: Replayed
    scenarios: tuple[Scenario, ...]
    notes: tuple[str, ...]
    abstention: str | None

    def to_dict(self) -> dict[str, Any]:
        """The contract of `commlens whatif --format json`."""
        plain = asdict(self)
        for scenario in plain["scenarios"]:
            scenario["set"], scenario["assumptions"] = list(scenario["set"]), list(scenario["assumptions"])
        return {"schema_version": 1, **plain, "scenarios": list(plain["scenarios"]), "notes": list(plain["notes"])}
