"""The documents say what the code does: pages of findings, thresholds, links, commands, tables, examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from analyzers.whatif_model import ddp_truths
from synthetic import training_rank, write_run

import commlens
from commlens.analyzers.advisor import suggested
from commlens.analyzers.whatif.buckets import BucketSettings
from commlens.cli.app import app
from commlens.trace.schema import TABLES, TIMINGS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FINDINGS = DOCS / "findings"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
MB = 1_000_000


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- findings ---------------------------------------------------------------------------------------------------


def emitted() -> set[str]:
    """Every id that the code can give a finding: what stands for a parameter `id` in the rules, and the advisor's."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "commlens" / "analyzers" / "findings").glob("*.py")]
    shared = {name: place for tree in trees for name, place in _places_of_id(tree).items() if name[0] != "_"}
    found = set(suggested._FINDINGS.values())
    for tree in trees:
        places = shared | _places_of_id(tree)
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                found |= {word for value in _ids_of(call, places) for word in _words(value)}
    return found


def _places_of_id(tree: ast.Module) -> dict[str, int]:
    """Where the functions of a module that take an `id` take it."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = {each.name: [argument.arg for argument in each.args.args] for each in functions}
    return {name: arguments.index("id") for name, arguments in names.items() if "id" in arguments}


def _ids_of(call: ast.Call, places: dict[str, int]) -> Iterator[ast.expr]:
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "id")
    place = places.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if place is not None and place < len(call.args):
        yield call.args[place]


def _words(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_words(value.body), *_words(value.orelse))
    elif isinstance(value, ast.Constant):
        yield str(value.value)


def documented() -> set[str]:
    return {page.stem for page in FINDINGS.glob("*.md")} - {"index"}


def test_every_id_has_a_page_and_every_page_an_id() -> None:
    assert {"straggler-rank", "slow-group", "slow-link", "no-overlap", "compression", "hang"} <= emitted()
    assert documented() == emitted()


def test_the_index_names_each_page_once_and_what_is_not_looked_for() -> None:
    index, _, missing = (FINDINGS / "index.md").read_text().partition("## Not looked for yet")
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(([\w-]+)\.md\) \|", index, re.MULTILINE)
    assert sorted(rows) == sorted((id, id) for id in emitted())
    planned = re.findall(r"^- `([\w-]+)`: ", missing, re.MULTILINE)
    assert planned and not set(planned) & emitted()


@pytest.mark.parametrize("id", sorted(documented()))
def test_a_page_has_every_part_and_the_thresholds_of_the_code(id: str) -> None:
    page = (FINDINGS / f"{id}.md").read_text()
    assert page.startswith(f"# `{id}`: ")
    for part in ("What it prints", "When it is reported", "What to do", "When it is wrong", "Sources"):
        assert f"\n## {part}\n" in page, part
    assert re.search(r"\n## A (sample|run) that shows it\n", page) and "**Ceiling:**" in page
    for name, file, value in re.findall(r"^\| `(\w+)` in `commlens/([\w/]+)\.py` \| ([\d.]+) \|", page, re.MULTILINE):
        module = importlib.import_module(f"commlens.{file.replace('/', '.')}")
        assert getattr(module, name) == float(value), (file, name)


# --- links ------------------------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """As GitHub and mkdocs make them of headings, whichever differ."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", each.lower()).strip() for each in headings]
    return {each.replace(" ", "-") for each in plain} | {re.sub(r"[- ]+", "-", each) for each in plain}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_site_shows_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} == set(re.findall(r"[\w/-]+\.md", site))


# --- commands ---------------------------------------------------------------------------------------------------


def shown(text: str) -> Iterator[str]:
    """Command lines of fences that begin with `commlens`, whole ones."""
    for fence in re.findall(r"^ *```(?:sh|console)?\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"^ *(?:\$ )?(commlens .+)$", fence.replace("\\\n", " "), re.MULTILINE)


def mentioned(text: str) -> Iterator[str]:
    """Commands in backticks, which need not be whole."""
    bare = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(each.split()) for each in re.findall(r"`(commlens [^`]+)`", bare))


def command_of(line: str) -> tuple[str, Any, list[str]]:
    """Name, typer's command and what follows, without what stands in brackets for the reader to leave out."""
    _, name, *words = shlex.split(re.sub(r"[][]", "", line.partition("  #")[0]))
    assert name in COMMANDS, line
    return name, COMMANDS[name], words


def check_parses(line: str) -> None:
    name, command, words = command_of(line)
    with command.make_context(name, words):
        pass


def lines(find: Callable[[str], Iterator[str]]) -> list[Any]:
    pairs = {(relative(page), line) for page in PAGES for line in find(page.read_text())}
    return [pytest.param(line, id=f"{page}: {line}") for page, line in sorted(pairs)]


@pytest.mark.parametrize("line", lines(shown))
def test_a_command_line_that_is_shown_parses(line: str) -> None:
    check_parses(line)


@pytest.mark.parametrize("line", lines(mentioned))
def test_a_command_that_is_mentioned_has_these_options(line: str) -> None:
    _, command, words = command_of(line)
    own = words[: words.index("--")] if "--" in words else words
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word for word in own if word.startswith("-")} <= known


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_commands_help_has_an_example_that_parses(name: str) -> None:
    examples = re.findall(r"Example: (commlens .+)", COMMANDS[name].help or "")
    assert len(examples) == 1, "one line: Example: commlens ..."
    assert shlex.split(examples[0])[1] == name
    check_parses(examples[0])


# --- formats and API --------------------------------------------------------------------------------------------


def test_the_page_of_formats_names_every_column_and_key(tmp_path: Path) -> None:
    page = (DOCS / "formats.md").read_text()
    for table, columns in TABLES.items():
        section = page.split(f"\n### `{table}`\n")[1].split("\n##")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(columns)
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("| `timing` |")[1].split("\n\n")[0], re.MULTILINE)) == set(
        TIMINGS
    )
    report = commlens.analyze(commlens.open_run(write_run(tmp_path, {0: training_rank(6)})))
    contract = page.split("### `commlens report --format json`")[1].split("\n### ")[0]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", contract, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(report.to_dict())


def test_the_examples_of_the_api_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "api.md").read_text()
    for name in commlens.__all__:
        assert f"`{name}`" in page, name
    sizes = [MB * size for size in (1, 2, 3, 1, 2, 5, 1, 4)]
    for name, late_ms in (("runs", (0.0, 8.0)), ("after", (0.0, 0.0))):
        write_run(tmp_path / name, ddp_truths(sizes, 0.5, 2, 40, BucketSettings(bucket_cap_mb=2), late_ms, steps=26))
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(>>> .*?)^```$", page, re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(code, {}, "api.md", None, None)
    assert len(test.examples) > 15
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not outcome.failed, "".join(said)
