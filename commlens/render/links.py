"""The links of each host: what they can carry, what they carried while that cost time, and what went wrong on them."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.link_kinds import moved_gb, worst_links
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.counted.link_lines import CARRIED, IDLE, UNREAD, UNSURE, LinkLine
from commlens.analyzers.counted.nodes import LOOPBACK
from commlens.render.at_scale.links import kinds_table
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, number, percent

TOP_LINKS = 16
_HOST = 14
_LEAST = 0.01  # of what the host's busiest link carried: less is not shown
_FAST = ("infiniband", "roce", "nvlink")
_NAMES = {"infiniband": "InfiniBand", "roce": "RoCE", "ethernet": "Ethernet", "nvlink": "NVLink", "pcie": "PCIe"}
_STATES = {CARRIED: "", IDLE: "idle", UNSURE: "idle?", UNREAD: "not read"}
_USED = (
    "used: busier direction while the job stands still for transfers; ~ is a mean over the time in which bytes moved. "
)
_NEEDED = "needed: what collectives had to move to or from that host over all its links, at least and at most."


def links_title(report: Report) -> str:
    """The section's title, with its unit and what is not shown."""
    shown, few = len(shown_links(report)), ""
    if shown > TOP_LINKS:
        few = f": {'alike ones, then the worst' if is_many(report) else 'the first'} {TOP_LINKS} of {shown:,}"
    return f"Links (GB/s, 1 GB = 1e9 bytes; GB over the analysed steps){few}"


def links_section(report: Report, console: Console) -> RenderableType | None:
    """One line a link that carried something, or should have; None where there is none."""
    shown = shown_links(report)
    lines = (worst_links(shown) if is_many(report) else shown)[:TOP_LINKS]
    if not lines:
        return None
    columns = [
        Column("host", [clipped(console, line.host, _HOST) for line in lines], right=False),
        Column("link", [clipped(console, line.device, _HOST) for line in lines], right=False),
        Column("kind", [_kind(line) for line in lines], right=False, drop=5),
        Column("peak", [number(line.peak_gb_s) for line in lines], drop=2),
        Column("used", [_used(line) for line in lines], drop=1),
        Column("of peak", [percent(line.share_of_peak) for line in lines], drop=2),
        Column("sent", [number(line.tx_gb) for line in lines], drop=4),
        Column("received", [number(line.rx_gb) for line in lines], drop=4),
        Column("needed", [_needed(line) for line in lines], drop=6),
        Column("errors", [str(line.errors) if line.errors else "" for line in lines], drop=3),
        Column("", [_STATES[line.state] for line in lines], right=False, drop=3),
    ]
    told = _USED * any(line.used_gb_s_mean is not None for line in lines)
    told += _NEEDED * any(line.expected_low_gb for line in lines)
    alike = [kinds_table(shown, _kind, console), ""] if is_many(report) else []
    table = Group(*alike, fitted(console, columns)) if alike else fitted(console, columns)
    return Group(table, note(told)) if told else table


def shown_links(report: Report) -> list[LinkLine]:
    """Links that carried something, or that the bytes could have taken."""
    busiest: dict[str, float] = {}
    for line in report.links:
        busiest[line.host] = max(busiest.get(line.host, 0.0), moved_gb(line))
    return [line for line in report.links if _matters(line, busiest[line.host])]


def _matters(line: LinkLine, busiest: float) -> bool:
    if line.kind == "tcp":
        return False
    if not busiest:
        return line.state == UNSURE and bool(line.expected_low_gb)
    return moved_gb(line) >= _LEAST * busiest or bool(line.errors) or line.kind in _FAST


def _kind(line: LinkLine) -> str:
    return "loopback" if line.device == LOOPBACK else _NAMES.get(line.kind, line.kind)


def _used(line: LinkLine) -> str:
    if line.state == IDLE and line.used_gb_s_mean is not None:
        return "0"
    if line.used_gb_s_p50 is not None:
        return number(line.used_gb_s_p50)
    return NOT_KNOWN if line.used_gb_s_mean is None else f"~{number(line.used_gb_s_mean)}"


def _needed(line: LinkLine) -> str:
    if not line.expected_high_gb:
        return NOT_KNOWN
    low, high = number(line.expected_low_gb), number(line.expected_high_gb)
    return low if low == high else f"{low}-{high}"
