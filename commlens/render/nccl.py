"""What NCCL's profiler plugin knows, in words and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.collective_line import CollectiveLine, NcclChoice
from commlens.analyzers.device_coverage import DeviceCoverage
from commlens.analyzers.device_operations import WAITS
from commlens.analyzers.nccl_lines import STEP, NcclReplays, NcclWaits
from commlens.render.at_scale.waits import kinds_table
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import counted, milliseconds, number, percent, size

TOP_CHOICES = 6
TOP_WAITS = 16
_GROUP = 14
_MOSTLY = 0.995  # of the operations: a choice for more is called that of all
_HEADS = {  # of `WAITS`, and which is left out first
    "send:\nGPU": 2,
    "send:\npeer": 2,
    "send:\nnetwork": 1,
    "recv:\nnetwork": 1,
    "recv:\nflush": 4,
    "recv:\nGPU": 3,
}
_SAID = (
    "send: for the GPU to produce, the receiver to have room, the network to send; recv: for data to come in, to be"
    " visible to the GPU, to be used by it. Sums over chunks that overlap: compare them with one another only."
)


def choices_note(lines: Sequence[CollectiveLine]) -> RenderableType | None:
    """What NCCL chose for the lines shown; None where it does not tell."""
    by_choice: dict[str, list[str]] = {}
    for line in lines:
        if line.nccl is not None and line.nccl.algorithm is not None:
            by_choice.setdefault(_choice(line.nccl), []).append(f"{line.op} {size(line.bytes)}")
    parts = [f"{', '.join(dict.fromkeys(what))} by {choice}" for choice, what in by_choice.items()]
    more = len(parts) - TOP_CHOICES
    rest = f"; {more} more" if more > 0 else ""
    return note(f"NCCL: {'; '.join(parts[:TOP_CHOICES])}{rest}.") if parts else None


def _choice(choice: NcclChoice) -> str:
    """ "RING, SIMPLE, 24 channels (87 %)"."""
    channels = counted(choice.channels, "channel") if choice.channels else None
    words = ", ".join(word for word in (choice.algorithm, choice.protocol, channels) if word)
    return words if choice.share >= _MOSTLY else f"{words} ({percent(choice.share)})"


def waits_title(report: Report) -> str:
    """The section's title, with its unit and what is not shown."""
    lines = report.nccl_waits
    per = "ms a step" if all(line.per == STEP for line in lines) else "ms over the whole recording"
    few = f": the {TOP_WAITS} longest of {len(lines):,}" if len(lines) > TOP_WAITS else ""
    few += "; alike groups together first" if is_many(report) else ""
    return f"What NCCL's network proxies waited for ({per}){few}"


def waits_section(report: Report, console: Console) -> RenderableType | None:
    """One line a rank and group whose bytes took a network; None where none did."""
    lines = sorted(report.nccl_waits, key=_total, reverse=True)[:TOP_WAITS]
    if not lines:
        return None
    lines.sort(key=lambda line: (line.rank, line.group))
    groups = [clipped(console, line.group, _GROUP) for line in lines]
    several = len({line.group for line in lines}) > 1
    columns = [
        Column("rank", [str(line.rank) for line in lines]),
        *([Column("group", groups, right=False)] if several else []),
        *(
            Column(head, [milliseconds(getattr(line, f"{name}_ms")) for line in lines], drop=drop)
            for (head, drop), name in zip(_HEADS.items(), WAITS, strict=True)
        ),
        Column("sent", [size(line.sent_bytes) for line in lines], drop=5),
        Column("received", [size(line.received_bytes) for line in lines], drop=6),
    ]
    alike = [kinds_table(report, _HEADS, console), ""] if is_many(report) else []
    return Group(*alike, fitted(console, columns), note(_SAID))


def _total(line: NcclWaits) -> float:
    return sum(getattr(line, f"{name}_ms") or 0.0 for name in WAITS)


def device_words(report: Report) -> list[tuple[str, str]]:
    """Names and texts for what the report rests on; none where no device was recorded."""
    cover = report.coverage.device_times
    if cover is None:
        return []
    told = [("device times", _device_times(cover))]
    if cover.copy_engine:
        text = f"{counted(cover.copy_engine, 'operation')} of NCCL moved by copy engines, which tell no times"
        told.append(("copy engines", text))
    return [*told, *([("graph replays", _replays(report.nccl_replays, cover))] if cover.replayed else [])]


def _device_times(cover: DeviceCoverage) -> str:
    known = cover.by_plugin + cover.in_windows
    sure = f" (half of them right to {number(cover.error_us_p50)} us)" if cover.error_us_p50 is not None else ""
    parts = [f"{cover.by_plugin:,} by NCCL's plugin{sure}"] if cover.by_plugin else []
    parts += [f"{cover.in_windows:,} in deep windows"] if cover.in_windows else []
    return f"of {known:,} of {counted(cover.collectives, 'collective')}{': ' * bool(parts)}{', '.join(parts)}"


def _replays(lines: Sequence[NcclReplays], cover: DeviceCoverage) -> str:
    """Operations that CUDA graphs replayed, of which no table tells."""
    text = f"{counted(cover.replayed, 'operation')} of NCCL, in none of the collectives above"
    if not lines or any(line.per != STEP for line in lines):
        return text
    times = [line.device_ms for line in lines if line.device_ms is not None]
    took = f", {milliseconds(sum(times))} ms of device time" if times else ""
    moved = sum(line.operations * line.bytes for line in lines if line.bytes is not None)
    return f"{text}; a step {number(sum(line.operations for line in lines))} a rank, of {size(moved)}{took}"
