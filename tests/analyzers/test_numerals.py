"""Numbers in words have digits that people read: no exponents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import commlens
from commlens.analyzers.numerals import counted, plain
from commlens.render.words import number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (0.00001234, 3, "0.0000123"),
        (0.0123456, 3, "0.0123"),
        (1.5, 3, "1.5"),
        (99.96, 3, "100"),
        (999.4, 3, "999"),
        (999.6, 3, "1000"),
        (1160.2, 3, "1160"),
        (1.69e3, 3, "1690"),
        (123456.7, 3, "123457"),
        (99.7, 2, "100"),
        (1.26, 2, "1.3"),
        (12345.6, 4, "12346"),
        (-1690.0, 3, "-1690"),
    ],
)
def test_plain_numbers(value: float, digits: int, text: str) -> None:
    assert plain(value, digits) == text


@pytest.mark.parametrize(("value", "text"), [(999.4, "999"), (999.6, "1,000"), (1160.4, "1,160"), (0.5, "0.5")])
def test_numbers_of_pages(value: float, text: str) -> None:
    assert number(value) == text


def test_no_words_are_made_with_a_format_that_turns_to_exponents() -> None:
    """`:.3g` is for numbers that are read back; `plain` and what render has are for people."""
    package = Path(commlens.__file__).parent
    files = [file for room in ("analyzers", "render", "cli", "ui") for file in (package / room).rglob("*.py")]
    found = {
        f"{file.relative_to(package)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if re.search(r":\+?\.[1-4]g\}", line) and "float(f" not in line and file.name not in ("numerals.py", "words.py")
    }
    assert found == set()


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 steps"), (1, "1 step"), (1.0, "1 step"), (1.5, "1.5 steps"), (2048, "2,048 steps"), (0.999, "0.999 steps")],
)
def test_one_thing_and_several(count: float, said: str) -> None:
    assert counted(count, "step") == said
