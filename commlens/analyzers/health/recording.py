"""Whether a run's recording is whole, and may be trusted: every symptom with how bad it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commlens.analyzers.across.signs import alive_ns, end_ns, last_sign_ns
from commlens.analyzers.endings import Raised, gave_up, interrupted
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.analyzers.health.differences import Difference, find_differences
from commlens.analyzers.health.sights import Sight, sights
from commlens.analyzers.rank_info import entries, machine_of, words
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.recent import SILENT_S
from commlens.analyzers.report import Report
from commlens.analyzers.settings.interfaces import Choice, gloo_choice, nccl_choice
from commlens.analyzers.settings.known import settings_to_know, without_launcher
from commlens.analyzers.settings.setting import Job, Setting, job_of
from commlens.analyzers.stages import Examined
from commlens.analyzers.steps import INFERRED
from commlens.trace.schema import MISSING

# How bad a symptom is.
GOOD: Final = "good"
FACT: Final = "fact"  # no verdict: nothing to judge, or it cannot be told
WARNING: Final = "warning"  # the report holds, with less than it could have
FAILURE: Final = "failure"  # the recording is not whole, or not to be trusted

_LOST = 0.01  # of the rows: more make a report's numbers too low
_APART = 0.1  # of the rows without a counterpart: more, and ranks were not joined
_NEEDED_HOOKS = ("collectives", "waits")
_STEP_HOOKS = ("backward", "optimizer")
_HANGS = ("hang", "desync")


@dataclass(frozen=True)
class Ending:
    """How the recording of one rank ended.

    Attributes:
        rank: global rank.
        ended: its process ended and the recorder wrote so.
        silent_s: since its last sign of life; None where it ended, or left no sign.
        signs: its recorder leaves signs of life while the rank issues nothing; those before commlens kept any do not.
        gave_up: why its recorder stopped before the rank did; None where it did not, or left no word.
    """

    rank: int
    ended: bool
    silent_s: float | None
    signs: bool = True
    gave_up: str | None = None

    @property
    def running(self) -> bool:
        """It wrote a moment ago."""
        silent = self.silent_s is None or self.silent_s >= SILENT_S
        return not (self.ended or silent or self.gave_up is not None)


@dataclass(frozen=True)
class Hook:
    """A hook that did not work: what the recorder said of it, and where."""

    name: str
    state: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Health:
    """What was found.

    Attributes:
        levels: how bad, by topic: "ranks", "ending", "collectives", "tables", "dropped", "ends", "matched", "clocks",
            "hooks", "steps", "cost", "size".
        endings: each rank's; none for imported runs.
        raised: ranks that an exception ended, the first in time first.
        hooks: those that did not work.
        contradiction: the clocks contradict each other.
        hangs: ids of the findings that say the job hung, or that its ranks disagreed.
        recorded: by commlens, not imported: its hooks and the ranks' settings are known.
        compared: settings of how many ranks are known.
        differences: between ranks.
        settings: those worth knowing, with the ranks that have them.
        shared: settings that all ranks have alike.
        sights: what the recorder sees of the job's backends; none for imported runs.
        gpus: ranks ran on them.
        choices: for each host, by its name, the interfaces that each backend takes.
        job: what is known of it.
    """

    levels: Mapping[str, str]
    endings: tuple[Ending, ...]
    raised: tuple[Raised, ...]
    hooks: tuple[Hook, ...]
    contradiction: bool
    hangs: tuple[str, ...]
    recorded: bool
    compared: int
    differences: tuple[Difference, ...]
    settings: tuple[tuple[Setting, tuple[int, ...]], ...]
    shared: Mapping[str, str]
    sights: tuple[Sight, ...]
    gpus: bool
    choices: tuple[tuple[str, Choice], ...]
    job: Job

    @property
    def healthy(self) -> bool | None:
        """Whether the recording is whole and sound; None where that cannot be told (yet)."""
        if FAILURE in self.levels.values():
            return False
        return None if FACT in (self.levels["ending"], self.levels["collectives"]) else True


def examine_health(examined: Examined, now_ns: int) -> Health:
    """Judge a run.

    Args:
        examined: the run and its report.
        now_ns: the wall clock; hosts whose clocks differ from it seem silent for so much longer or shorter.
    """
    infos = {number: rank.info for number, rank in examined.run.ranks.items()}
    own = [facts for facts in examined.ranks if not facts.who.imported]
    endings = tuple(_ending(facts, infos[facts.rank], now_ns) for facts in own)
    hooks = _broken_hooks(infos)
    job = job_of(infos.values())
    contradiction = examined.joined.clocks.contradiction
    hangs = tuple(dict.fromkeys(f.id for f in examined.report.findings if f.id in _HANGS))
    return Health(
        levels=_levels(examined.report, endings, hooks if own else None, contradiction, bool(hangs)),
        endings=endings,
        raised=examined.report.coverage.raised,
        hooks=hooks,
        contradiction=contradiction,
        hangs=hangs,
        recorded=bool(own),
        compared=sum(isinstance(info.get("environment"), dict) for info in infos.values()),
        differences=find_differences(infos),
        settings=_settings(infos, job),
        shared=_shared(infos),
        sights=_sights(infos, job) if own else (),
        gpus=any(info.get("device") == "cuda" for info in infos.values()),
        choices=tuple(_choices(infos, job)),
        job=job,
    )


def _ending(facts: RankFacts, info: Mapping[str, Any], now_ns: int) -> Ending:
    last = last_sign_ns(facts, info)
    ended = end_ns(info) is not None or facts.who.ended is not None
    silent_s = None if ended or last == MISSING else max(0.0, (now_ns - last) / 1e9)
    return Ending(facts.rank, ended, silent_s, alive_ns(info) is not None, gave_up(info))


def _broken_hooks(infos: Mapping[int, Mapping[str, Any]]) -> tuple[Hook, ...]:
    states: dict[tuple[str, str], list[int]] = {}
    for rank, info in sorted(infos.items()):
        for name, state in words(info, "hooks").items():
            if name != "recorder" and state != "ok":
                states.setdefault((name, state), []).append(rank)
    return tuple(Hook(*key, tuple(ranks)) for key, ranks in states.items())


def _settings(infos: Mapping[int, Mapping[str, Any]], job: Job) -> tuple[tuple[Setting, tuple[int, ...]], ...]:
    having: dict[Setting, list[int]] = {}
    for rank, info in sorted(infos.items()):
        for each in settings_to_know(words(info, "environment"), entries(info, "interfaces"), job):
            having.setdefault(each, []).append(rank)
    return tuple((each, tuple(ranks)) for each, ranks in having.items())


def _shared(infos: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    told = [words(info, "environment") for info in infos.values()]
    first = without_launcher(told[0]) if told else {}
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in told)}


def _sights(infos: Mapping[int, Mapping[str, Any]], job: Job) -> tuple[Sight, ...]:
    """As the least able of the ranks sees."""
    native = all(words(info, "hooks").get("recorder") == "native" for info in infos.values())
    return sights(job.backends or (), native, all(info.get("nccl_plugin") for info in infos.values()))


def _choices(infos: Mapping[int, Mapping[str, Any]], job: Job) -> Iterator[tuple[str, Choice]]:
    """By the first rank of each host, where there are several hosts."""
    hosts = {machine_of(info): info for _, info in sorted(infos.items(), reverse=True)}
    for info in reversed(hosts.values()) if len(hosts) > 1 else ():
        settings, interfaces = words(info, "environment"), entries(info, "interfaces")
        if interfaces and "gloo" in (job.backends or ()):
            yield str(info.get("host")), gloo_choice(settings, interfaces, None)
        if interfaces and "nccl" in (job.backends or ()):
            yield str(info.get("host")), nccl_choice(settings, interfaces, _ports(info))


def _ports(info: Mapping[str, Any]) -> list[str] | None:
    """Its host's InfiniBand and RoCE ports; None where this rank did not read them."""
    links = [link for link in entries(info, "links") if link.get("kind") != "process"]
    return [str(link.get("name")) for link in links if link.get("kind") in ("infiniband", "roce")] if links else None


def _levels(
    report: Report, endings: Sequence[Ending], hooks: Sequence[Hook] | None, contradiction: bool, hung: bool
) -> dict[str, str]:
    cover, cost = report.coverage, report.overhead
    seen = cover.collectives_seen
    return {
        "ranks": FAILURE if report.run.ranks_missing or cover.damaged_ranks else GOOD,
        "ending": _ending_level(endings, cover.raised, hung),
        "collectives": GOOD if seen or report.aggregates is not None else FACT,
        "tables": GOOD if not cover.truncated else FACT if any(e.running for e in endings) else WARNING,
        "dropped": share_level(cover.dropped, cover.dropped + seen, 0, _LOST),
        "ends": share_level(cover.ends_unknown, seen, _LOST, 1.0),
        "matched": FACT if cover.match_key is None else share_level(cover.collectives_unmatched, seen, _LOST, _APART),
        "clocks": _clock_level(report, contradiction),
        "hooks": FACT if hooks is None else _hook_level(hooks),
        "steps": _step_level(report, any(each.running for each in endings)),
        "cost": _cost_level(cost.percent_of_step),
        "size": FACT,
    }


def _ending_level(endings: Sequence[Ending], raised: Sequence[Raised], hung: bool) -> str:
    crashed = bool(raised) and not interrupted(raised)
    if hung or crashed or any(not each.ended and not each.running for each in endings):
        return FAILURE
    if raised:
        return WARNING
    return FACT if not endings or any(each.running for each in endings) else GOOD


def share_level(part: int, whole: int, some: float, many: float) -> str:
    """How bad it is to miss a part: good up to a share of `some`, a warning up to `many`, then a failure."""
    share = part / whole if whole else 0.0
    return GOOD if share <= some else WARNING if share <= many else FAILURE


def _clock_level(report: Report, contradiction: bool) -> str:
    if len(report.run.ranks_present) < 2:
        return FACT
    return GOOD if report.coverage.clock.refusal is None else FAILURE if contradiction else WARNING


def _hook_level(hooks: Sequence[Hook]) -> str:
    names = {hook.name for hook in hooks}
    if names & set(_NEEDED_HOOKS):
        return FAILURE
    return WARNING if names & set(_STEP_HOOKS) else FACT if names else GOOD


def _step_level(report: Report, running: bool) -> str:
    if not report.run.steps.analyzed:
        only = report.aggregates is not None and report.aggregates.only
        return FACT if running or only else WARNING
    return FACT if report.run.steps.how == INFERRED else GOOD


def _cost_level(share: float | None) -> str:
    """At a cost that would be a finding if it were the job's."""
    return FACT if share is None else WARNING if share >= 100 * LEAST_SHARE else GOOD
