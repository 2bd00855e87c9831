"""The words of a page as a reader without JavaScript sees them, by section."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
NOT_WORDS = {"figure", "script", "style", "noscript", "nav", "title"}
NOT_OF_THE_REPORT = {"badge", "none", "skip"}  # classes
APART = {"p", "td", "th", "h1", "h2", "h3", "br", "tr", "div", "summary", "details", "article"}


class Page(HTMLParser):
    """Parses a page; every element must be closed in its turn.

    Attributes:
        words: of each section, by its id; what stands before them is "verdict".
        tags: every element with its attributes, in order.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.words: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, bool]] = []
        self.section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append((tag, told))
        if tag in ("section", "header"):
            self.section = told["id"] or ""
        if tag in APART:
            self._add(" ")
        hidden = tag in NOT_WORDS or bool(NOT_OF_THE_REPORT & set((told.get("class") or "").split()))
        if tag not in VOID:
            self.open.append((tag, hidden))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.open.pop()
        assert opened == tag
        if tag in ("section", "header"):
            self.section = ""

    def handle_data(self, data: str) -> None:
        if not any(hidden for _, hidden in self.open):
            self._add(data)

    def _add(self, words: str) -> None:
        if self.section:
            self.words[self.section] = self.words.get(self.section, "") + words
