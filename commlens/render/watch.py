"""The page of `commlens watch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.text import Text

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.counted.link_lines import LinkLine
from commlens.analyzers.recent import ENDED, SILENT, Recent, RecentLine
from commlens.render.columns import Column, fitted, note
from commlens.render.windows import window_words
from commlens.render.words import NOT_KNOWN, counted, milliseconds, number, pairs, percent
from commlens.trace import Run
from commlens.trace.on_nodes import pack_entry

TOP: Final = 16
_LINKS: Final = 4


def page(run: Run, found: Recent, console: Console) -> RenderableType:
    """Everything that is shown."""
    return Group(pairs(_head(run, found)), Text(), *_ranks(found, console))


def _head(run: Run, found: Recent) -> list[tuple[str, str]]:
    lines = [("run", str(run.path)), *_packed(run), ("ranks", _present(run, found))]
    lines += window_words(found.windows)
    if any(line.paused for line in found.ranks):
        lines.append(
            ("paused", f"collectives of {name_ranks(r.rank for r in found.ranks if r.paused)} are not written")
        )
    if summed := [line.rank for line in found.ranks if line.summed]:
        lines.append(
            ("sums", f"{name_ranks(summed)}: only sums since COMMLENS_QUOTA was reached; below, the steps before")
        )
    if chosen := {line.sampled: None for line in found.ranks if line.sampled is not None}:
        lines.append(("sampled", f"collectives of some steps only are written: COMMLENS_STEPS={'; '.join(chosen)}"))
    lines += _links(found.links)
    dropped = sum(line.dropped for line in found.ranks)
    return [*lines, ("dropped", counted(dropped, "collective"))] if dropped else lines


def _packed(run: Run) -> list[tuple[str, str]]:
    """What is seen of a run that is recorded on its nodes."""
    packed = pack_entry(run.info)
    if not packed:
        return []
    if str(run.path) == packed["local"]:
        return [("node", f"the ranks of this node only; the others are packed into {packed['run']}")]
    return [("packs", f"as of the last pack of each node; as it is now, on a node: commlens watch {packed['local']}")]


def _present(run: Run, found: Recent) -> str:
    if not found.ranks:
        return "none has written anything yet"
    missing = f"; nothing is known of {name_ranks(found.missing)}" if found.missing else ""
    ended = "; all have ended, this is the end of the recording" if found.ended else ""
    return f"{len(found.ranks)} of {run.world_size}{missing}{ended}"


def _ranks(found: Recent, console: Console) -> list[RenderableType]:
    shown = _chosen(found.ranks)
    if not shown:
        return []
    few = [Text(f"{TOP} of {len(found.ranks)} ranks: those that are silent, cause or wait most")]
    columns = [
        Column("rank", [str(line.rank) for line in shown]),
        Column("host", [line.host or NOT_KNOWN for line in shown], right=False, drop=9),
        Column("state", [line.state for line in shown], right=False),
        Column("steps", [NOT_KNOWN if line.steps_ended is None else f"{line.steps_ended:,}" for line in shown]),
        Column("ms/step", [milliseconds(line.step_ms) for line in shown]),
        Column("standstill", [percent(line.standstill) for line in shown], drop=1),
        Column("wait", [milliseconds(line.wait_ms) for line in shown], drop=3),
        Column("caused", [milliseconds(line.caused_wait_ms) for line in shown], drop=2),
        Column("coll/s", [number(line.per_second) for line in shown], drop=4),
        Column("last sign", [_ago(line) for line in shown], drop=5),
    ]
    steps = min((line.steps for line in shown), default=0)
    words = note(
        f"Over the last {counted(steps, 'step')} read. wait, caused: ms a step that it waits, and is waited for."
    )
    return [*(few if len(shown) < len(found.ranks) else []), fitted(console, columns), words]


def _ago(line: RecentLine) -> str:
    return NOT_KNOWN if line.state == ENDED or line.silent_s == float("inf") else f"{line.silent_s:.0f} s ago"


def _chosen(lines: Sequence[RecentLine]) -> list[RecentLine]:
    """All ranks, or those that are silent, cause or wait most."""
    by_need = sorted(lines, key=lambda r: (r.state != SILENT, -(r.caused_wait_ms or 0), -(r.wait_ms or 0)))
    return sorted(by_need[:TOP], key=lambda line: line.rank)


def _links(links: Sequence[LinkLine]) -> list[tuple[str, str]]:
    """The busiest links."""
    busy = sorted((link for link in links if link.run_gb_s), key=lambda link: -(link.run_gb_s or 0))[:_LINKS]
    return [("link", f"{each.device} of {each.host}: {_rate(each)}") for each in busy]


def _rate(link: LinkLine) -> str:
    peak = f" of {number(link.peak_gb_s)}" if link.peak_gb_s else ""
    return f"{number(link.run_gb_s)}{peak} GB/s in its busier direction"
