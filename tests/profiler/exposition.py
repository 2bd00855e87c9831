"""Reads Prometheus' text format as a collector does, and refuses what one would refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"^({_NAME})(?:\{{(.*)\}})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_ESCAPES = {"\\n": "\n", "\\\\": "\\", '\\"': '"'}


@dataclass
class Metric:
    """One metric: its type, its help, and its samples by their labels."""

    kind: str
    help: str
    samples: dict[frozenset[tuple[str, str]], float] = field(default_factory=dict)

    def of(self, **labels: str) -> float:
        """The one sample that has these labels among its own."""
        (value,) = [value for key, value in self.samples.items() if labels.items() <= dict(key).items()]
        return value


def parse(text: str) -> dict[str, Metric]:
    """Metrics by name.

    Raises:
        ValueError: A collector would refuse the text.
    """
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    found: dict[str, Metric] = {}
    helps: dict[str, str] = {}
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, said = line[7:].partition(" ")
            if name in helps:
                raise ValueError(f"second help of {name}")
            helps[name] = said
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            if name in found or kind not in ("counter", "gauge"):
                raise ValueError(f"type of {name}: {kind}")
            found[name] = Metric(kind, helps.get(name, ""))
        else:
            _add(found, line)
    return found


def _add(found: dict[str, Metric], line: str) -> None:
    match = _SAMPLE.match(line)
    if match is None:
        raise ValueError(f"no sample: {line!r}")
    name, labels, value = match.groups()
    if name not in found or list(found)[-1] != name:
        raise ValueError(f"{name} is not in the group of its type")
    if (name.endswith("_total")) != (found[name].kind == "counter"):
        raise ValueError(f"{name} is a {found[name].kind}")
    key = frozenset(_labels(labels or "").items())
    if key in found[name].samples:
        raise ValueError(f"twice: {line!r}")
    found[name].samples[key] = float(value)


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None or match[1] in found:
            raise ValueError(f"labels: {text!r}")
        found[match[1]] = re.sub(r'\\[n"\\]', lambda escape: _ESCAPES[escape[0]], match[2])
        at = match.end()
    return found
