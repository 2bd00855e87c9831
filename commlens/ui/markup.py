"""Blocks as HTML: every word escaped, tables with heads that say what they are of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from commlens.ui.blocks import BAR, PLAIN, QUIET, Block, Line, Table, Words

_COMMAND = re.compile(r"(commlens|torchrun|python) \S|[A-Z][A-Z_]{3,}=\S")
_TAGS = {"strong": "strong", "alarm": "strong", "quiet": "span", "bar": "span"}


def escaped(text: str) -> str:
    """Text as HTML shows it, within elements and quoted attributes; what cannot be seen becomes U+FFFD."""
    return escape("".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text))


def markup(blocks: Iterable[Block]) -> str:
    """Paragraphs and tables."""
    return "\n".join(_table(block) if isinstance(block, Table) else _line(block) for block in blocks)


def _line(line: Line) -> str:
    if all(each.emphasis == QUIET for each in line.words):
        return f'<p class="quiet">{escaped(line.text)}</p>'
    return f"<p>{''.join(_words(each) for each in line.words)}</p>"


def _words(words: Words) -> str:
    if words.emphasis == PLAIN or not words.text:
        text = escaped(words.text)
        return f"<code>{text}</code>" if _COMMAND.match(words.text) else text
    tag = _TAGS[words.emphasis]
    hidden = ' aria-hidden="true"' if words.emphasis == BAR else ""
    return f'<{tag} class="{words.emphasis}"{hidden}>{escaped(words.text)}</{tag}>'


def _table(table: Table) -> str:
    kind = "ruled" if table.head else "pairs" if len(table.numbers) == 2 and table.named else "plain"
    head = ""
    if table.head:
        cells = (_head(name, number) for name, number in zip(table.head, table.numbers, strict=True))
        head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    rows = "".join(_row(table, row) for row in table.rows)
    body = f'<table class="{kind}">{head}<tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{body}</div>' if table.head else body


def _head(name: str, number: bool) -> str:
    return f'<th scope="col"{_right(number)}>{escaped(name).replace(chr(10), "<br>")}</th>'


def _row(table: Table, row: tuple[Words, ...]) -> str:
    cells = []
    for place, (words, number) in enumerate(zip(row, table.numbers, strict=True)):
        named = table.named and place == 0 and words.text
        tag, scope = ("th", ' scope="row"') if named else ("td", "")
        cells.append(f"<{tag}{scope}{_right(number)}>{_words(words)}</{tag}>")
    kind = row_class(row[0].text) if table.named and row else ""
    opening = f'<tr class="{kind}">' if kind else "<tr>"
    return f"{opening}{''.join(cells)}</tr>"


def _right(number: bool) -> str:
    return ' class="number"' if number else ""


def row_class(name: str) -> str:
    """Rows with a plain name can be told apart by style sheets: "row-exposed-wait"; "" for other names."""
    plain = re.fullmatch(r"[a-z][a-z ,:-]{0,40}", name.strip())
    return "row-" + "-".join(re.findall("[a-z]+", name)) if plain else ""
