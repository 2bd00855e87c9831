"""The one-file report: the terminal's words and figures, nothing from outside, names that stay names."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import commlens
from page_runs import HOSTILE, RUNS, report_of, written
from page_words import Page

from commlens import Report
from commlens.render.report import print_report, sections
from commlens.render.words import open_console
from commlens.ui import figures
from commlens.ui.blocks import WIDTH, wide_console
from commlens.ui.figures import frame
from commlens.ui.html import ordered, to_html, write_html

NAMES = pytest.mark.parametrize("name", RUNS)


def printed(report: Report) -> dict[str, str]:
    """What the terminal shows, as wide as the page, by section; bars left out."""
    page, width = io.StringIO(), WIDTH
    print_report(report, open_console(page, width=width))
    titles = {section.title: section.key for section in sections(report, wide_console())}
    found, key = {"verdict": ""}, "verdict"
    for line in page.getvalue().splitlines():
        if line in titles:
            key = titles[line]
            found[key] = ""
        found[key] += f"{line}\n"
    return found


def words(text: str) -> list[str]:
    """Without bars and rules."""
    return re.sub("[█─]", " ", text).split()


@NAMES
def test_page_and_terminal_say_the_same(name: str) -> None:
    report = report_of(name)
    page, terminal = Page(to_html(report)).words, printed(report)
    run = page.pop("verdict").replace(report.run.run_id, "", 1)  # the page's title
    assert words(run) and Counter(words(run)) == Counter(words(terminal.pop("verdict")))
    if "budget" not in terminal:
        assert words(page.pop("budget")) == words("Where a step goes")
    assert set(page) == set(terminal)
    for key, text in terminal.items():
        assert Counter(words(page[key])) == Counter(words(text)), key
        # Heads of several lines stand in another order, their numbers and the rows do not.
        numbers = [[word for word in words(each) if re.search(r"\d", word)] for each in (page[key], text)]
        assert numbers[0] == numbers[1], key


@pytest.mark.parametrize("name", ["faulty", "imported", "single"])
def test_figures_say_the_same_as_the_table_beside_them(name: str) -> None:
    report = report_of(name)
    shown = [text for trace in figures.budget(report).to_plotly_json()["data"] for text in trace["text"]]
    assert len(shown) > 2
    assert all(text in " ".join(Page(to_html(report)).words["budget"].split()) for text in shown)


def test_of_a_job_that_stood_who_stood_comes_first() -> None:
    report = report_of("hung")
    stood = replace(report_of("faulty").findings[0], id="hang")
    assert [section.key for section in ordered(report)][:2] == ["budget", "findings"]
    assert [section.key for section in ordered(replace(report, findings=(stood,)))][:3] == [
        *("findings", "progress", "budget"),
    ]


def test_it_is_one_small_file_that_loads_nothing() -> None:
    text = to_html(report_of("faulty"))
    assert len(text.encode()) < 5 * 2**20
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "base", "form")]
    assert not [told for _, told in page.tags if {"src", "srcset", "action"} & set(told)]
    assert not [told["href"] for tag, told in page.tags if tag == "a" and not (told["href"] or "").startswith("#")]
    assert "@import" not in text and "url(" not in text


def test_only_its_own_two_scripts_may_run() -> None:
    text = to_html(report_of("faulty"))
    policy = next(told["content"] or "" for tag, told in Page(text).tags if told.get("http-equiv"))
    assert "default-src 'none'" in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    packed = re.search(r'<script type="text/plain" id="plotly-js">([^<]*)</script>', text)
    assert packed
    plotly = gzip.decompress(base64.b64decode(packed[1])).decode()
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (scripts[0], plotly)]
    assert re.findall(r"'sha256-([^']*)'", policy) == digests
    assert "unsafe" not in policy.split("style-src")[0]


def test_a_page_without_figures_has_no_script_at_all() -> None:
    text = to_html(report_of("nothing"))
    assert "<script" not in text
    assert "script-src 'none'" in text
    assert "no collective was recorded" in text


@NAMES
def test_figures_that_cannot_be_drawn_say_why_in_words(name: str) -> None:
    report = report_of(name)
    text = to_html(report)
    for draw, key in ((figures.budget, "budget"), (figures.bandwidth, "bandwidth")):
        assert ((f'id="figure-{key}"' in text) + frame.empty(draw(report))) == 1


@NAMES
def test_whoever_cannot_see_it_is_told(name: str) -> None:
    page = Page(to_html(report_of(name)))
    heads = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert heads[0] == 1 and heads.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(heads))
    assert all(told.get("scope") in ("col", "row") for tag, told in page.tags if tag == "th")
    plots = [told for _, told in page.tags if told.get("class") == "plot"]
    assert all(told["role"] == "img" and (told["aria-label"] or "").endswith(".") for told in plots)
    ids = [told["id"] for _, told in page.tags if told.get("id")]
    assert len(set(ids)) == len(ids)
    targets = {told["href"] for tag, told in page.tags if tag == "a"}
    assert targets <= {f"#{name}" for name in ids}
    assert "#verdict" in targets


def test_names_are_no_markup() -> None:
    report = report_of("hostile")
    text = to_html(report)
    page = Page(text)
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["img"] == tags["b"] == 0
    assert "<img" not in text and "window.hacked=1>" not in text
    assert text.count("</script") == tags["script"]
    assert HOSTILE in " ".join(page.words["costs"].split())  # and are shown as they are
    # A script element ends at the first "</script", and a comment in it would go on beyond that.
    for data in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S):
        assert not set("<>&\u2028\u2029") & set(data)


def test_notebooks_show_the_same_without_scripts() -> None:
    report = report_of("faulty")
    text = report._repr_html_()
    page = Page(f'<section id="all">{text}</section>')
    assert "script" not in {tag for tag, _ in page.tags}
    shown = Counter(words(page.words["all"]))
    expected = Counter(words(" ".join(printed(report).values())))
    assert not expected - shown
    assert "<img" not in report_of("hostile")._repr_html_()


def test_the_same_report_is_the_same_file(tmp_path: Path) -> None:
    write_html(report_of("faulty"), tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == to_html(report_of("faulty"))


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, target = written("faulty", tmp_path / "run"), tmp_path / "report.html"
    command = ("report", run, "--format", "html")
    assert commlens(monkeypatch, *command) == 0
    page = capsys.readouterr().out
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert commlens(monkeypatch, *command, "-o", target) == 0
    assert target.read_text(encoding="utf-8") == page
    target.write_text("mine")
    assert commlens(monkeypatch, *command, "-o", target) == 1
    assert target.read_text() == "mine"
    assert commlens(monkeypatch, *command, "-o", target, "--force") == 0
    assert commlens(monkeypatch, *command, "-o", tmp_path / "absent" / "report.html") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]
