"""What `commlens doctor RUN` says of a run."""

from __future__ import annotations

from typing import Any, Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.endings import interrupted
from commlens.analyzers.findings.exceptions import raised_words
from commlens.analyzers.health.differences import Difference
from commlens.analyzers.health.recording import FACT, FAILURE, GOOD, WARNING, Ending, Health
from commlens.analyzers.report import Report
from commlens.analyzers.stages import Examined
from commlens.analyzers.unseen import steps_out
from commlens.render.checks import Check, Conflict, Diagnosis, Part, settings_part
from commlens.render.machine import choice_check, sights_part
from commlens.render.trust import clock_words, cut_short, matched_words, own_cost, trace_words
from commlens.render.words import counted, how_told, number, percent

_OK: Final = {GOOD: True, FACT: None, WARNING: None, FAILURE: False}
_LINES: Final = 6  # of values that differ
_HOSTS: Final = 8
_MAKE_ALIKE: Final = {
    "setting": "set it alike for every rank, or for none",
    "version": "install the same on every host",
    "interface": "compare `ip -d link` on these hosts",
    "recording": "commlens build on every host, and the same COMMLENS_ variables",
}


def recording_part(report: Report, health: Health) -> Part:
    """Whether the recording is whole and sound."""
    lines = [
        _check(health, "ranks", "ranks", _ranks(report), "give every part: commlens doctor FOLDER FOLDER ..."),
        _check(health, "ending", "end", _ending(health), _after_end(health)),
        _check(health, "collectives", "collectives", _collectives(report)),
        _check(health, "tables", "tables", _tables(report)),
        _check(health, "dropped", "dropped", _dropped(report), "commlens build: the native recorder has more room"),
        _check(health, "ends", "ends", _ends(report), _after_ends(health)),
        _check(health, "matched", "matched", matched_words(report)),
        _check(health, "clocks", "clocks", clock_words(report)),
        _check(health, "hooks", "hooks", _hooks(health), "commlens doctor, on the machine that ran it"),
        _check(health, "steps", "steps", _steps(report)),
    ]
    if not report.run.imported:
        lines.append(_check(health, "cost", "own cost", own_cost(report), "commlens build, if it was not native"))
        lines.append(_check(health, "size", "trace", trace_words(report)))
    notes = [Check(None, "note", note) for note in report.coverage.notes]
    return Part("Recording", (*lines, *notes))


def _check(health: Health, topic: str, name: str, answer: str, then: str = "") -> Check:
    level = health.levels[topic]
    wanted = then if level in (WARNING, FAILURE) else ""
    return Check(_OK[level], name, answer, wanted, warning=level == WARNING)


def _ranks(report: Report) -> str:
    run, damaged = report.run, report.coverage.damaged_ranks
    missing = [rank for rank in run.ranks_missing if rank not in damaged]
    parts = [f"{len(run.ranks_present)} of {run.world_size}"]
    if missing:
        parts.append(f"nothing is known of {name_ranks(missing)}")
    if run.ranks_sampled_out:
        parts.append(f"{len(run.ranks_sampled_out):,} left out on purpose (COMMLENS_RANKS={run.sampled_ranks})")
    if damaged:
        parts.append(f"{name_ranks(damaged)} cannot be read")
    return "; ".join(parts)


def _ending(health: Health) -> str:
    if not health.endings:
        return "the imported files do not tell how the ranks ended"
    running = [each.rank for each in health.endings if each.running]
    stopped = [each for each in health.endings if not each.ended and not each.running]
    broken = [each for each in stopped if each.gave_up is None]
    parts = [raised_words(health.raised)] if health.raised else []
    parts += [f"{name_ranks(running)} still running"] if running else []
    parts += [
        f"of {name_ranks(ranks)} recording stopped early ({why}), and how the process ended is not known"
        for why, ranks in _gave_up(stopped).items()
    ]
    if broken:
        parts.append(f"{name_ranks(e.rank for e in broken)} wrote no end{_silence(broken)}: {_became(broken)}")
    if health.hangs:
        parts.append(f"the report's first findings: {', '.join(health.hangs)}")
    return "; ".join(parts) or "every rank ended as it should"


def _gave_up(stopped: list[Ending]) -> dict[str, list[int]]:
    """Ranks whose recorder gave up, by why."""
    found: dict[str, list[int]] = {}
    for each in stopped:
        if each.gave_up is not None:
            found.setdefault(each.gave_up, []).append(each.rank)
    return found


def _became(broken: list[Ending]) -> str:
    signed = all(each.signs for each in broken)
    became = "killed, or frozen as a whole" if signed else "killed, frozen, or busy in its own code"
    return f"{became}; or there was no room for its files (a full disk)"


def _silence(broken: list[Ending]) -> str:
    known = [each.silent_s for each in broken if each.silent_s is not None]
    return f", the last sign {_duration(min(known))} ago" if known else ", and no sign of life"


def _duration(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(int(seconds // length), name)
    return counted(int(seconds), "second")


def _after_end(health: Health) -> str:
    if any(each.gave_up is not None for each in health.endings):
        return "make room where the run is written, if the disk was full, and record again"
    if interrupted(health.raised):
        return ""
    if health.raised:
        return "read the traceback of the rank named first, in what the launcher printed"
    what = "who did not come" if health.hangs else "what was under way when the recording stops"
    return f"commlens report says {what}"


def _tables(report: Report) -> str:
    cut = [f"{who}: {tables}" for who, tables in cut_short(report)]
    return f"cut short, the rows before were used: {'; '.join(cut)}" if cut else "whole"


def _dropped(report: Report) -> str:
    cover = report.coverage
    if not cover.dropped:
        return "none"
    share = percent(cover.dropped, cover.dropped + cover.collectives_seen)
    return f"{counted(cover.dropped, 'collective')} for want of room ({share})"


def _ends(report: Report) -> str:
    unknown, seen = report.coverage.ends_unknown, report.coverage.collectives_seen
    timings = ", ".join(sorted({line.timing for line in report.collectives if line.timing}))
    how = f"; seen by: {timings}" if timings else ""
    return f"known for all{how}" if not unknown else f"not known for {unknown:,} of {seen:,}{how}"


def _after_ends(health: Health) -> str:
    return "commlens build: NCCL's plugin tells them" if health.job.may_use("nccl") else ""


def _hooks(health: Health) -> str:
    if not health.recorded:
        return "no recorder of commlens was there"
    return "; ".join(f"{each.name}: {each.state} ({name_ranks(each.ranks)})" for each in health.hooks) or "all work"


def _collectives(report: Report) -> str:
    seen, told = counted(report.coverage.collectives_seen, "collective"), report.aggregates
    return seen if told is None else f"{seen}; {told.collectives:,} more as sums only (COMMLENS_QUOTA)"


def _steps(report: Report) -> str:
    steps = report.run.steps
    only = report.aggregates is not None and report.aggregates.only
    none = ": only sums were recorded" if only else ": no step can be told"
    how = f", {how_told(steps.how)}" if steps.analyzed else none
    out = f"; {said}" if (said := steps_out(steps)) else ""
    return f"{number(steps.analyzed)} of {number(steps.count)} analysed{how}{out}"


def differences_part(health: Health) -> Part:
    """What ranks disagree in."""
    checks = [_difference(each) for each in health.differences]
    return Part("Differences between ranks", tuple(checks) or (_no_difference(health),))


def _no_difference(health: Health) -> Check:
    if health.compared < 2:
        only = "only one rank was recorded" if health.recorded else "the imported files do not tell settings and hosts"
        return Check(None, "not compared", only)
    return Check(
        True, "none", f"{health.compared} ranks have the same settings, versions, interfaces, devices and hooks"
    )


def _difference(found: Difference) -> Check:
    sides = [f"{value} ({name_ranks(ranks)})" for value, ranks in found.sides[:_LINES]]
    more = len(found.sides) - _LINES
    text = "; ".join([*sides, *([counted(more, "other value")] if more > 0 else [])])
    why = f": {found.note}" if found.note else ""
    then = "" if found.expected else _MAKE_ALIKE.get(found.what, "")
    return Check(None, found.name, text + why, then, warning=not found.expected)


def difference_dict(found: Difference) -> dict[str, Any]:
    """For JSON."""
    return {
        "what": found.what,
        "name": found.name,
        "values": [{"value": value, "ranks": list(ranks)} for value, ranks in found.sides],
        "expected": found.expected,
        "note": found.note,
    }


def choices_part(health: Health) -> Part:
    """Which interfaces the backends take on each host."""
    checks = [choice_check(choice, host) for host, choice in health.choices[:_HOSTS]]
    more = len(health.choices) - _HOSTS
    others = [Check(None, "others", f"{more} more, of which nothing is said here")] if more > 0 else []
    return Part("Network interfaces", (*checks, *others))


def settings_of(health: Health) -> tuple[Conflict, ...]:
    """Settings that there is something to say of, with whose they are."""
    return tuple(Conflict(setting, ranks) for setting, ranks in health.settings)


def diagnosis(examined: Examined, health: Health) -> Diagnosis:
    """All that is said of a run."""
    report, known = examined.report, settings_of(health)
    parts = [recording_part(report, health), differences_part(health)]
    if health.sights:
        parts.append(sights_part(health.sights, health.gpus))
    if health.choices:
        parts.append(choices_part(health))
    parts.append(settings_part(known, health.shared, health.compared))
    return Diagnosis(
        "run",
        report.run.path,
        tuple(parts),
        tuple(each for each in known if each.setting.is_warning),
        health.healthy,
        tuple(difference_dict(each) for each in health.differences),
    )


def verdict(found: Diagnosis) -> str:
    """The last line."""
    failed, warned = counted(found.failed, "check"), counted(found.warned, "warning")
    if found.healthy is False:
        return f"Not healthy: {failed} failed, {warned}."
    sound = "Healthy" if found.healthy else "Nothing is wrong as far as it can be told"
    return f"{sound}: {warned}." if found.warned else f"{sound}."
