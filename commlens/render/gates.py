"""Gates as lines, as JUnit XML, and as annotations of GitHub Actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from commlens.analyzers.gating.outcome import PASSED, TRIPPED, Outcome

SUITE = "commlens"
_LONGEST = 4000  # characters of a message; GitHub cuts longer ones anyhow


def gate_lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each gate."""
    return (f"gate {plain(each.gate)}: {each.state}: {plain(each.said)}" for each in outcomes)


def plain(text: str) -> str:
    """On one line, without what a terminal would obey or XML forbids."""
    letters = "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in text)
    words = " ".join(letters.split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."


def junit(outcomes: Sequence[Outcome], about: str, at: str) -> str:
    """JUnit XML, as Ant's, Jenkins' and GitLab's readers take it: a test case for each gate.

    A gate that tripped is a failure, one that cannot be judged an error.

    Args:
        outcomes: of a command's gates.
        about: the run, or the runs, in words.
        at: when they were judged, ISO 8601 without a zone.
    """
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(each.state == TRIPPED for each in outcomes)),
        "errors": str(sum(each.state not in (PASSED, TRIPPED) for each in outcomes)),
        "time": "0",
    }
    suites = ElementTree.Element("testsuites")  # without attributes: schemas do not agree on them
    # JUnit's schema wants a host: this one is not the job's, and nobody's business.
    named = {"name": SUITE, "package": SUITE, "id": "0", "hostname": "localhost", "timestamp": at}
    suite = ElementTree.SubElement(suites, "testsuite", {**named, **counts, "skipped": "0"})
    ElementTree.SubElement(suite, "properties")
    for each in outcomes:
        _case(suite, each)
    ElementTree.SubElement(suite, "system-out").text = "\n".join([plain(about), *gate_lines(outcomes)])
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, outcome: Outcome) -> None:
    named = {"name": plain(outcome.gate), "classname": f"{SUITE}.gates", "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", named)
    if outcome.state != PASSED:
        kind = "failure" if outcome.state == TRIPPED else "error"
        told = {"message": plain(outcome.said), "type": outcome.state}
        ElementTree.SubElement(case, kind, told).text = plain(outcome.said)


def github_commands(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A workflow command of GitHub Actions for each gate that did not pass."""
    for each in outcomes:
        if each.state != PASSED:
            title = _escaped(plain(f"commlens: {each.gate}: {each.state}")).replace(":", "%3A").replace(",", "%2C")
            yield f"::error title={title}::{_escaped(plain(each.said))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
