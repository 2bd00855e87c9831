"""A report that can be given away: names of hosts, users, files and networks replaced by placeholders.

Names that the report holds as such (hosts, network interfaces, the run's folder, its command) are replaced wherever
they occur in any text; paths, file names, addresses and users also where only their form tells what they are. The same
name has the same placeholder everywhere, so the report says what it said before. Numbers, ranks, operations, kernels
and the job's own names of process groups stay.

Words that identify nobody stay in sentences, for replacing them would spoil the sentences: names of one or two letters,
and hosts called "localhost" or like a word of the report. Where they stand alone as a host they are replaced too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final

from commlens.analyzers.counted.nodes import LOOPBACK, NETWORK
from commlens.analyzers.report import Report
from commlens.trace.schema import DTYPES, KERNEL_KINDS, OPS, PHASES

HOST, LINK, RUN, COMMAND, USER, FILE = "host", "link", "run", "command", "user", "file"
_FEWEST = 3  # letters of a name that is replaced within sentences
_WORDS: Final = frozenset(
    (
        *("localhost", "host", "hosts", "node", "master", "worker", "rank", "ranks", "group", "step", "steps", "gpu"),
        *("link", "links", "network", "ring", "tree", "compute", "copies", "gaps", "idle", "other", "wait", "transfer"),
        *("bound", "carried", "unsupported", "unmatched", "communication", "strategy", "critical", "high", "medium"),
        *("low", "exact", "lossy", "person", "research", "known", "intra", "inter", "root", "home"),
        *(*OPS, *DTYPES, *KERNEL_KINDS, *PHASES, *NETWORK),
    )
)
_OURS: Final = frozenset({"run.json", "rank.json", "control.json"})
_ENDINGS = (
    "json|jsonl|gz|zst|py|pt|pkl|pickle|log|txt|csv|parquet|sqlite|arrows?|events|yaml|yml|toml|sh|so|nsys-rep|zip"
)
_PART = r"[^\s/'\"`,;:()\[\]<>|]+"  # of a path
_HEX = r"[0-9A-Fa-f]{1,4}"
_SOME = rf"(?:{_HEX}(?::{_HEX})*)?"
_FORMS: Final = {  # what a piece of text is by its form, the first that fits
    "address_url": r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+",
    "user_at": r"(?<![\w.+-])[\w.+-]+@[\w.-]+\w",
    "address_mac": r"(?<![0-9A-Za-z:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Za-z:])",
    "address_v6": rf"(?<![0-9A-Za-z:])(?=[0-9A-Fa-f:]*\d)(?:{_SOME}::{_SOME}|(?:{_HEX}:){{7}}{_HEX})(?:%\w+)?(?![\w:])",
    "address_v4": r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?:[:/]\d+)?(?![\d.]*\d)",
    "path_windows": r"(?<![A-Za-z])[A-Za-z]:\\[^\s'\"<>|]+",
    "path_unix": rf"(?<![\w./~)-])(?:~|\.{{1,2}})?(?:/{_PART})+/?",
    "file": rf"(?<![\w/])[\w.+=@%-]+(?:/[\w.+=@%-]+)*\.(?:{_ENDINGS})(?![A-Za-z0-9])",
}
_IN_HOME = re.compile(r"(?:/home|/Users|/users|/scratch|[\\/]Users)[\\/]([^\s/\\'\"]+)")


def redact(report: Report) -> Report:
    """The same report without names of hosts, users, paths, commands, interfaces and addresses."""
    names = _found(report)
    told: Report = _without(report, names)
    run = report.run
    command = (names.of(COMMAND, shlex.join(run.command)),) if run.command else ()
    path, run_id = names.of(RUN, run.run_id), names.of(RUN, run.run_id)
    return replace(told, run=replace(told.run, path=path, run_id=run_id, command=command))


@dataclass
class _Names:
    """Placeholders by name; `literal` are the names to look for, `pattern` finds them and what has a known form."""

    placeholders: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    literal: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pattern = re.compile("(?!)")

    def of(self, kind: str, name: str) -> str:
        """ "host-1"; the same for the same name."""
        if name not in self.placeholders:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.placeholders[name] = f"{kind}-{self.counts[kind]}"
        return self.placeholders[name]

    def know(self, kind: str, name: str, same_as: str | None = None) -> None:
        """A name to be replaced in every text; `same_as` is another one of the same thing."""
        placeholder = self.of(kind, same_as if same_as is not None else name)
        self.placeholders.setdefault(name, placeholder)
        if len(name) >= _FEWEST and name.casefold() not in _WORDS:
            self.literal[name.casefold()] = placeholder

    def compile(self) -> None:
        """Look for longer names first: a host's full name holds its short one."""
        known = sorted(self.literal, key=lambda name: (-len(name), name))
        literal = "|".join(re.escape(name) for name in known) or "(?!)"
        forms = "|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items())
        whole = rf"(?P<known>(?<![A-Za-z0-9])(?P<name>(?i:{literal}))(?![A-Za-z0-9])(?P<below>(?:/{_PART})*))"
        self.pattern = re.compile(f"{whole}|{forms}")

    def without(self, text: str) -> str:
        """A text with placeholders."""
        if text in self.placeholders and text not in _WORDS:
            return self.placeholders[text]
        return self.pattern.sub(self._replaced, text)

    def _replaced(self, found: re.Match[str]) -> str:
        text, form = found[0], str(found.lastgroup)
        if form == "known":
            below = f"/{self.of(FILE, found['below'])}" if found["below"] else ""
            return self.literal[found["name"].casefold()] + below
        if text in _OURS:
            return text
        kept = text.rstrip(".,;:") if form in ("address_url", "path_unix", "path_windows") else text
        return self.of(form.split("_")[0], kept) + text[len(kept) :]


def _found(report: Report) -> _Names:
    names, run = _Names(), report.run
    names.know(RUN, run.run_id)
    names.know(RUN, run.path, same_as=run.run_id)
    if run.command:
        line = shlex.join(run.command)
        names.know(COMMAND, line)
        names.know(COMMAND, " ".join(run.command), same_as=line)
    for host in _hosts(report):
        names.know(HOST, host)
        names.know(HOST, host.split(".")[0], same_as=host)
    for link in report.links:
        if link.kind in NETWORK and link.device != LOOPBACK:
            names.know(LINK, link.device)
    for text in (run.path, *run.command):
        for user in _IN_HOME.findall(text):
            names.know(USER, user)
    names.compile()
    return names


def _hosts(report: Report) -> Iterable[str]:
    told = [line.host for line in report.ranks] + [line.host for line in report.links]
    told += [line.host for line in report.gpus]
    return dict.fromkeys(host for host in (*report.run.hosts, *told) if host)


def _without(value: Any, names: _Names, name: str = "") -> Any:
    """Any part of a report with its texts replaced, keys of dicts among them."""
    if isinstance(value, str):
        alone = name in ("host", "hosts", "device") and value in names.placeholders
        return names.placeholders[value] if alone else names.without(value)
    if isinstance(value, tuple | list):
        return type(value)(_without(each, names, name) for each in value)
    if isinstance(value, dict):
        return {_without(key, names): _without(each, names) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **dict(_parts(value, names)))
    return value


def _parts(value: Any, names: _Names) -> Iterator[tuple[str, Any]]:
    for each in fields(value):
        yield each.name, _without(getattr(value, each.name), names, each.name)
