"""Checks of a machine or a run, as text and as JSON: for `commlens doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.settings.setting import Setting
from commlens.render.columns import INDENT, PROSE
from commlens.render.words import print_tight

SCHEMA_VERSION: Final = 1
_NARROW: Final = 64  # columns; in fewer, answers stand under their names
_NAMES: Final = (18, 34)  # columns of a name, at least and at most
_MARKS: Final = {True: ("ok", "green"), False: ("FAIL", "bold red"), None: ("", "")}
_WARNED: Final = ("warn", "yellow")


@dataclass(frozen=True)
class Check:
    """One line.

    Attributes:
        ok: True, False, or None where it is a fact and no verdict, or could not be looked at.
        name: what was looked at.
        answer: what was found.
        next: what to do; "" where there is nothing to do.
        warning: `ok` is None, but somebody should look at it.
    """

    ok: bool | None
    name: str
    answer: str
    next: str = ""
    warning: bool = False


@dataclass(frozen=True)
class Part:
    """Checks under one title."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Conflict:
    """A setting, or several, that somebody should look at.

    Attributes:
        setting: what is said of it.
        ranks: that have it; None for this machine.
    """

    setting: Setting
    ranks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All that `commlens doctor` found.

    Attributes:
        about: "machine" or "run".
        run: where the run lies, None for a machine.
        healthy: of a machine, that nothing failed; of a run as `Health.healthy`.
    """

    about: str
    run: str | None
    parts: tuple[Part, ...]
    conflicts: tuple[Conflict, ...] = ()
    healthy: bool | None = None
    differences: tuple[dict[str, Any], ...] = ()

    @property
    def failed(self) -> int:
        """Checks that failed."""
        return sum(check.ok is False for part in self.parts for check in part.checks)

    @property
    def warned(self) -> int:
        """Checks that somebody should look at."""
        return sum(check.warning for part in self.parts for check in part.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: dicts, lists, strings and None."""
        from commlens._version import __version__

        return {
            "schema_version": SCHEMA_VERSION,
            "producer": f"commlens {__version__}",
            "about": self.about,
            "run": self.run,
            "healthy": self.healthy,
            "sections": [{"title": p.title, "checks": [asdict(check) for check in p.checks]} for p in self.parts],
            "conflicts": [_conflict(each) for each in self.conflicts],
            "differences": list(self.differences),
        }


def _conflict(conflict: Conflict) -> dict[str, Any]:
    setting = conflict.setting
    return {
        "settings": dict(setting.given),
        "kind": setting.kind,
        "note": setting.note,
        "next": setting.next,
        "ranks": None if conflict.ranks is None else list(conflict.ranks),
    }


def print_part(part: Part, console: Console) -> None:
    """A title and its checks; where there is little room, answers under their names."""
    width = min(console.width, PROSE)
    print_tight(console, Text(part.title, style="bold"), width)
    narrow = width < _NARROW
    body = _stacked(part.checks) if narrow else check_table(part.checks)
    print_tight(console, Padding(body, (0, 0, 0, INDENT), expand=False), width)
    console.print()


def check_table(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=4)
    least, most = _NAMES
    longest = max((len(check.name) for check in checks), default=0)
    table.add_column(width=min(most, max(least, longest)), overflow="fold")
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(_mark(check), check.name, check.answer)
        if check.next:
            table.add_row("", "", Text(f"next: {check.next}", style="dim"))
    return table


def _stacked(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=4)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(_mark(check), check.name)
        for line in (check.answer, check.next and f"next: {check.next}"):
            if line:
                table.add_row("", Padding(Text(line, style="dim", overflow="fold"), (0, 0, 0, INDENT)))
    return table


def _mark(check: Check) -> Text:
    word, style = _WARNED if check.warning else _MARKS[check.ok]
    return Text(word, style=style)


def settings_part(known: Sequence[Conflict], plain: Mapping[str, str], everybody: int | None = None) -> Part:
    """Settings that change communication: what they do, then those of which there is nothing to say.

    Args:
        known: what is said of settings.
        plain: names and values of all, or of those that all ranks share.
        everybody: how many ranks told their settings, None for this machine. Whose a setting is, is said where not
            all have it.
    """
    said = {name for each in known for name, _ in each.setting.given}
    noted = [_setting(each, everybody) for each in known]
    others = [Check(None, name, value) for name, value in plain.items() if name not in said]
    none = Check(None, "not recorded" if everybody == 0 else "none set", "")
    return Part("Settings that change communication", tuple(noted + others) or (none,))


def _setting(conflict: Conflict, everybody: int | None) -> Check:
    setting, ranks = conflict.setting, conflict.ranks
    where = "" if ranks is None or len(ranks) == everybody else f" ({name_ranks(ranks)})"
    return Check(None, setting.words, setting.note + where, setting.next, warning=setting.is_warning)
