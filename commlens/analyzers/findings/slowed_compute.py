"""Finding contention: communication is hidden behind compute that it slows down."""

from __future__ import annotations

from commlens.analyzers.findings.build import advice, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding

_NAME = 60  # characters of a kernel's name


def find_slowed_compute(context: Context) -> list[Finding]:
    """Compute that loses time beside communication; none where that costs too little, or there are no steps."""
    lost = sum(line.lost_ms_per_step for line in context.contention)
    if not context.matters(lost):
        return []
    worst = context.contention[0]
    weighted = sum(line.slowdown * line.lost_ms_per_step for line in context.contention) / lost
    return [
        Finding(
            id="contention",
            title=f"compute kernels run {plain(weighted, 2)} times as long beside communication as alone",
            layer="ccl",
            severity=severity(context, lost),
            confidence="medium",
            ranks=(),
            group=None,
            steps=(),
            evidence=(
                Evidence("time compute loses beside communication, per step, mean over ranks", round(lost, 3), "ms"),
                Evidence("kernels (name and grid) seen both ways", float(len(context.contention)), ""),
                Evidence(f"slowdown of {worst.name[:_NAME]}", worst.slowdown, "x"),
                Evidence("it runs alone, median", worst.alone_ms, "ms"),
                Evidence("it runs beside communication, median", worst.beside_ms, "ms"),
            ),
            ceiling_ms=round(lost, 3),
            actions=(
                advice(
                    "give communication fewer of the device's multiprocessors: NCCL_MAX_CTAS (4, 8, 16)",
                    change="NCCL_MAX_CTAS=8",
                    risk="transfers take longer, and may no longer be hidden",
                    verify="record again and compare the step",
                ),
            ),
            could_be_wrong_if=("kernels of one name and grid do different work beside communication than alone",),
        )
    ]
