"""The first sentences of a report: what communication costs, what of it is waiting, and why."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers import Report
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.findings.looked_for import HANG, LATE, ONLY_SUMS, looked_for
from commlens.analyzers.lane_lines import LaneLine
from commlens.analyzers.unseen import unseen
from commlens.render.budget import uneven_wait_ms
from commlens.render.compared import least_cost
from commlens.render.words import milliseconds, number, percent, size

STOPPED = ("hang", "desync", "exception")
_STOPPED_BY = {"exception": "An exception ended the job: "}


def headline(report: Report) -> str:
    """What communication costs of each step, the first finding, else the costliest collective."""
    cost, cause = (_cost(report), _split(report)), _cause(report)
    # What a step cost a job that stopped is not what anybody wants to know first.
    parts = (cause, *cost) if report.findings and report.findings[0].id in STOPPED else (*cost, cause)
    return " ".join(part for part in parts if part)


def _cost(report: Report) -> str:
    budget = report.time_budget
    if not report.run.steps.analyzed and report.device_lanes:
        return _whole_trace(report.device_lanes)
    if budget.step_ms is None or budget.exposed_ms is None:
        reasons = [each.reason for each in sorted(report.abstentions, key=lambda a: a.analysis != "time-budget")]
        reason = reasons[0] if reasons else "nothing was recorded"
        return f"What communication costs of a step cannot be told: {reason}."
    return (
        f"Communication costs {milliseconds(budget.exposed_ms)} ms of each {milliseconds(budget.step_ms)} ms step"
        f" ({percent(budget.exposed_ms, budget.step_ms)})."
    )


def _whole_trace(lanes: Sequence[LaneLine]) -> str:
    """What the devices tell without steps, means over the ranks."""
    span, communication, exposed, idle = (
        sum(getattr(lane, field) for lane in lanes) / len(lanes)
        for field in ("span_ms", "communication_ms", "exposed_ms", "host_bound_ms")
    )
    return (
        f"No steps are known. Of {milliseconds(span)} ms of device time communication took"
        f" {milliseconds(communication)} ms, {milliseconds(exposed)} ms of it exposed"
        f" ({percent(exposed, span)}); in {percent(idle, span)} nothing had been launched."
    )


def _split(report: Report) -> str:
    """Shares of waiting and moving bytes: of their sum, because medians do not add up to that of the whole."""
    budget = report.time_budget
    wait, transfer, unsplit = budget.exposed_wait_ms, budget.exposed_transfer_ms, budget.exposed_unsplit_ms or 0
    if budget.exposed_ms == 0:
        return ""
    if wait is None or transfer is None or not wait + transfer + unsplit:
        return "" if budget.exposed_ms is None else "How much of it is waiting for late ranks is not known."
    whole = wait + transfer + unsplit
    parts = [f"{percent(wait, whole)} of it is waiting for late ranks"]
    if transfer or not unsplit:
        parts.append(f"{percent(transfer, whole)} moving bytes")
    if unsplit >= 0.01 * whole:
        parts.append(f"{percent(unsplit, whole)} could not be split")
    uneven = uneven_wait_ms(report)
    more = f" in the usual step; the mean step waits {milliseconds(uneven)} ms" if uneven is not None else ""
    return f"About {', '.join(parts)}{more}."


def _cause(report: Report) -> str:
    obstacles = dict(looked_for(report))
    hung = " Whether it hung cannot be told." if obstacles.get(HANG) is not None else ""
    if report.findings:
        title, id = report.findings[0].title, report.findings[0].id
        stopped = _STOPPED_BY.get(id, "The job did not get on: ") if id in STOPPED else ""
        return f"{stopped}{title[0] if stopped else title[0].upper()}{title[1:]}.{hung}"
    if obstacles[LATE] == ONLY_SUMS:
        return f"By sums of collectives no rank is late all the time; who is late now and then they do not show.{hung}"
    if not report.collectives:
        return hung.strip()
    if obstacles[LATE] is not None:
        return f"Which rank is always late cannot be told.{hung}{_costliest(report)}"
    unknown = unseen(report.run)
    elsewhere = f" {unknown[0].upper()}{unknown[1:]}: the cause may lie there." if unknown else ""
    least = f" {said}" if (said := least_cost(report)) else ""
    return f"No cause{least} was found.{elsewhere}{hung}{_costliest(report)}"


def _costliest(report: Report) -> str:
    line = next(iter(report.collectives), None)
    if line is None or not line.exposed_ms_per_step:
        return ""
    often = f", {number(line.count_per_step)} a step" if line.count_per_step is not None else ""
    what = line.op if line.bytes is None or line.op == "barrier" else f"{line.op} of {size(line.bytes)}"
    cost = f"{milliseconds(line.exposed_ms_per_step)} ms"
    return f" The costliest: {what} in group {group_name(line)}{often}, {cost}."


def group_name(line: CollectiveLine) -> str:
    """A group as torch names it, with its description where it has one."""
    described = line.group_desc not in ("", "undefined", line.group)
    return f"{line.group} ({line.group_desc})" if described else line.group
