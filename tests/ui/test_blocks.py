"""Blocks hold every word and cell of what render made, and nothing that they do not know passes silently."""

from __future__ import annotations

import re

import pytest
from page_runs import RUNS, report_of
from rich.console import Group
from rich.constrain import Constrain
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from commlens.render.report import header, sections
from commlens.render.words import pairs, plain_table
from commlens.ui import palette
from commlens.ui.blocks import Line, Table, Words, blocks, wide_console
from commlens.ui.markup import markup, row_class
from commlens.ui.scripts import asset


def test_a_table_with_a_head() -> None:
    table = plain_table(["group"], ["size\nkB"])
    table.add_row("0", "12")
    (block,) = blocks(table)
    assert block == Table(("group", "size\nkB"), ((Words("0"), Words("12")),), (False, True), named=True)
    assert markup([block]) == (
        '<div class="scroll"><table class="ruled"><thead><tr><th scope="col">group</th>'
        '<th scope="col" class="number">size<br>kB</th></tr></thead><tbody><tr><th scope="row">0</th>'
        '<td class="number">12</td></tr></tbody></table></div>'
    )


def test_names_and_what_they_stand_for() -> None:
    (block,) = blocks(pairs([("wrong if", "<b>"), ("", "x")]))
    assert isinstance(block, Table)
    assert block.rows[0] == (Words("wrong if", "quiet"), Words("<b>"))
    assert markup([block]).count("&lt;b&gt;") == 1
    assert '<tr class="row-wrong-if"><th scope="row">' in markup([block])


def test_rows_are_called_by_plain_names_only() -> None:
    assert row_class("  exposed, not split") == "row-exposed-not-split"
    assert row_class("idle: nothing launched") == "row-idle-nothing-launched"
    assert row_class('" onclick=x') == row_class("rank 3") == row_class("<b>") == row_class("") == ""


def test_bars_have_the_colours_of_figures() -> None:
    style = asset("page.css")
    for kind in (palette.COMPUTE, palette.WAIT, palette.TRANSFER, palette.UNSPLIT, palette.EXPOSED, palette.OTHER):
        rule = re.search(rf"\.{row_class(palette.NAMES[kind])} \.bar[^{{]*\{{ color: (#\w+)", style)
        assert rule and rule[1] == palette.COLOURS[kind].lower()


def test_rows_have_styles_of_their_own() -> None:
    table = RichTable.grid()
    table.add_column()
    table.add_column(justify="right", style="red")
    table.add_row("step", "1 ms", style="bold")
    table.add_row("bar", "████")
    (block,) = blocks(table)
    assert isinstance(block, Table)
    assert [each.emphasis for row in block.rows for each in row] == ["strong", "alarm", "", "bar"]


def test_pieces_of_a_text() -> None:
    text = Text("plain bold end")
    text.stylize("bold", 6, 10)
    assert blocks(text) == (Line((Words("plain "), Words("bold", "strong"), Words(" end"))),)
    assert markup(blocks(text)) == '<p>plain <strong class="strong">bold</strong> end</p>'


def test_what_holds_others() -> None:
    parts = Group("one", "", Padding(Constrain(Text("two", style="dim"), 9), (0, 0, 0, 3)))
    assert blocks(parts) == (Line((Words("one"),)), Line((Words("two", "quiet"),), indent=3))


def test_what_is_not_known_is_an_error() -> None:
    with pytest.raises(TypeError, match="Panel"):
        blocks(Panel("lost"))
    table = RichTable.grid()
    table.add_column()
    table.add_row(Panel("lost"))
    with pytest.raises(TypeError, match="cell"):
        blocks(table)


@pytest.mark.parametrize("name", RUNS)
def test_every_section_can_be_told(name: str) -> None:
    report = report_of(name)
    assert blocks(header(report))
    for section in sections(report, wide_console()):
        for block in blocks(section.body):
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} == {len(block.numbers)}
