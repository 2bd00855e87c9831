"""Settings that change communication, and what they do to it: the one door to what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from commlens.analyzers.settings.conflicts import conflicts
from commlens.analyzers.settings.interfaces import interface_notes
from commlens.analyzers.settings.rules import single_notes
from commlens.analyzers.settings.setting import KINDS, UNKNOWN_JOB, Job, Setting

# What launchers tell each process: where it stands, not how it communicates.
_LAUNCHERS: Final = ("TORCHELASTIC_", "MASTER_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def without_launcher(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings but those that say where a process stands in its job."""
    return {name: value for name, value in settings.items() if not name.startswith(_LAUNCHERS)}


def settings_to_know(
    settings: Mapping[str, str], interfaces: Sequence[Mapping[str, Any]], job: Job = UNKNOWN_JOB
) -> list[Setting]:
    """What of one rank's environment changes communication in a way people are surprised by, the worst first.

    Args:
        settings: Environment variables, as in rank.json.
        interfaces: Network interfaces, as in rank.json (`name`, `state`, `address`).
        job: What is known of the job; what cannot matter in it is only noted.
    """
    clashes = list(conflicts(settings, job))
    told = {given for clash in clashes for given in clash.given[:1]}
    singles = [each for each in single_notes(settings, job) if not (each.given[0] in told and not each.is_warning)]
    found = [*clashes, *interface_notes(settings, interfaces, job), *singles]
    return sorted(found, key=lambda each: KINDS.index(each.kind))
