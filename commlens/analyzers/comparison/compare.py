"""From two runs to their comparison."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from commlens.analyzers.comparison.alike import find_refusals, find_warnings
from commlens.analyzers.comparison.changed import find_changed
from commlens.analyzers.comparison.compared import (
    CollectivePair,
    Comparison,
    FindingPair,
    GroupPair,
    RankPair,
    Seen,
)
from commlens.analyzers.comparison.difference import LEVEL, Difference, difference
from commlens.analyzers.comparison.noise import PARTS
from commlens.analyzers.comparison.side import OF_RANKS, Side, side
from commlens.analyzers.report import Finding, Report
from commlens.analyzers.stages import Examined

Compared = Report | Examined | Side


def compare(before: Compared, after: Compared, alike: Sequence[Compared] = ()) -> Comparison:
    """Set two runs of a job side by side.

    What was examined tells intervals of everything, settings and the model; reports alone tell intervals of the time
    budget, from `Report.by_step`.

    comparison = commlens.compare(commlens.analyze(one), commlens.analyze(other))

    Args:
        before: the first run.
        after: the second.
        alike: further runs of the first one's job: what such runs differ by then counts as chance too.
    """
    return _Pairs(side(before), side(after), [side(each) for each in alike]).comparison()


class _Pairs:
    """Everything of both runs, matched by name."""

    def __init__(self, before: Side, after: Side, alike: Sequence[Side]) -> None:
        self.before, self.after, self.alike = before, after, alike

    def comparison(self) -> Comparison:
        before, after = self.before.report, self.after.report
        own, others = ({_key(each): each for each in report.findings} for report in (before, after))
        return Comparison(
            before=_seen(before),
            after=_seen(after),
            level=LEVEL,
            alike_runs=len(self.alike),
            refusals=self.refusals(),
            warnings=find_warnings(self.before, self.after),
            changed=find_changed(self.before, self.after),
            step=self.differences(["step_ms"])["step_ms"],
            parts=self.differences(PARTS[1:]),
            groups=self.groups(),
            collectives=self.collectives(),
            ranks=self.ranks(),
            appeared=tuple(each for key, each in others.items() if key not in own),
            gone=tuple(each for key, each in own.items() if key not in others),
            stayed=tuple(
                FindingPair(each, Difference(own[key].ceiling_ms, each.ceiling_ms))
                for key, each in others.items()
                if key in own
            ),
        )

    def refusals(self) -> tuple[str, ...]:
        """Of the two runs, and of what is to tell their noise."""
        unlike = [
            (each.report.run.path, why) for each in self.alike for why in find_refusals(self.before, each, "other")
        ]
        return *find_refusals(self.before, self.after), *(f"{path} tells no noise of it: {why}" for path, why in unlike)

    def differences(self, names: Sequence[Any]) -> dict[Any, Difference]:
        """Of a table: their intervals hold together, so each is told at a higher level (Bonferroni)."""
        known = [(self.before.known(name), self.after.known(name)) for name in names]
        count = sum(one.error_ms is not None and other.error_ms is not None for one, other in known)
        level = 1 - (1 - LEVEL) / max(count, 1)
        return {
            name: difference(one, other, level, self.like(name))
            for name, (one, other) in zip(names, known, strict=True)
        }

    def like(self, name: Hashable) -> list[float] | None:
        """The quantity in the runs of before's job, None where there is but one."""
        if not self.alike:
            return None
        found = [each.values.get(name) for each in (self.before, *self.alike)]
        return [each for each in found if each is not None]

    def groups(self) -> tuple[GroupPair, ...]:
        names = dict.fromkeys(line.group for each in (self.before, self.after) for line in each.report.collectives)
        told = self.differences([("group", name) for name in names])
        return tuple(
            sorted((GroupPair(name, pair) for (_, name), pair in told.items()), key=lambda g: -_moved(g.exposed))
        )

    def collectives(self) -> tuple[CollectivePair, ...]:
        sides = [
            {(line.group, line.op, line.bytes): line.count_per_step for line in each.report.collectives}
            for each in (self.before, self.after)
        ]
        names = [("line", *name) for name in {**sides[0], **sides[1]}]
        exposed, moved = (self.differences([(*name, part) for name in names]) for part in ("exposed_ms", "transfer_ms"))
        found = [
            CollectivePair(
                *name[1:],
                count_per_step=(sides[0].get(name[1:]), sides[1].get(name[1:])),
                transfer=moved[(*name, "transfer_ms")],
                exposed=exposed[(*name, "exposed_ms")],
            )
            for name in names
        ]
        return tuple(sorted(found, key=lambda each: -_moved(each.exposed)))

    def ranks(self) -> tuple[RankPair, ...]:
        numbers = sorted({*self.before.report.run.ranks_present, *self.after.report.run.ranks_present})
        tables = [self.differences([("rank", number, part) for number in numbers]) for part in OF_RANKS]
        return tuple(
            RankPair(number, *(table["rank", number, part] for table, part in zip(tables, OF_RANKS, strict=True)))
            for number in numbers
        )


def _moved(pair: Difference) -> float:
    """How much there is more or less of it; of what one run has alone, all of it."""
    return abs((pair.after_ms or 0) - (pair.before_ms or 0))


def _key(finding: Finding) -> Hashable:
    """What makes two findings the same cause."""
    return finding.id, finding.ranks, finding.group


def _seen(report: Report) -> Seen:
    run, coverage = report.run, report.coverage
    seen = coverage.collectives_seen
    return Seen(
        path=run.path,
        world_size=run.world_size,
        ranks=len(run.ranks_present),
        steps=run.steps.analyzed,
        steps_how=run.steps.how,
        collectives=seen,
        matched=round(coverage.collectives_matched / seen, 4) if seen else None,
        dropped=coverage.dropped,
        clock_uncertainty_us=coverage.clock.uncertainty_us,
    )
