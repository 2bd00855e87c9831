"""A person at the dashboard: a real Chromium walks every page, zooms, chooses, and watches a run grow."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ui.runs_to_show import KINDS, faulty, growing, healthy

from commlens.ui.dashboard.app import create_app
from commlens.ui.dashboard.pages import PAGES
from commlens.ui.dashboard.runs import Runs
from commlens.ui.dashboard.server import guard, make_server

pytestmark = pytest.mark.browser
PATIENCE_S = 60.0  # on a busy machine


class Site:
    """A dashboard that is served, and the browser in front of it."""

    def __init__(self, browser: Any, folders: list[Path]) -> None:
        self.browser, self.runs = browser, Runs(folders)
        app = create_app(self.runs)
        guard(app.server, None, local_only=True)
        self.server = make_server(app, "127.0.0.1", 0)
        self.stopped = threading.Event()
        self.threads = [
            threading.Thread(target=self.server.serve_forever, daemon=True),
            threading.Thread(target=self.runs.follow, args=(self.stopped,), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def open(self, path: str) -> None:
        self.browser.get_log("browser")
        self.browser.get("about:blank")
        self.browser.get(f"http://127.0.0.1:{self.server.port}/{path}")
        self.until("return document.querySelector('#page h1') !== null")
        self.drawn()

    def follow(self, title: str) -> None:
        """A link of the navigation."""
        self.browser.execute_script(
            "[...document.querySelectorAll('#nav a')].find(link => link.textContent === arguments[0]).click()", title
        )
        self.until("return document.querySelector('#page h1')?.textContent === arguments[0]", title)
        self.drawn()

    def drawn(self) -> None:
        self.until("return [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('.main-svg'))")

    def until(self, script: str, *given: Any) -> Any:
        """What a script answers, once that is something."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if found := self.browser.execute_script(script, *given):
                return found
            assert time.monotonic() < deadline, (script, self.text("body"), self.browser.get_log("browser"))
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return str(
            self.browser.execute_script("return document.querySelector(arguments[0])?.innerText || ''", selector)
        )

    def click(self, name: str) -> None:
        self.browser.execute_script("document.getElementById(arguments[0]).click()", name)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def close(self) -> None:
        self.browser.get("about:blank")
        self.stopped.set()
        self.server.shutdown()
        for thread in self.threads:
            thread.join(30)
        self.server.server_close()


@pytest.fixture
def site(browser: Any) -> Iterator[Callable[..., Site]]:
    opened: list[Site] = []

    def make(*folders: Path) -> Site:
        opened.append(Site(browser, list(folders)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.mark.parametrize("kind", ["faulty", "healthy", "partial", "growing", "hostile", "empty"])
def test_every_page_is_shown(site: Callable[..., Site], kind: str, tmp_path: Path) -> None:
    shown = site(KINDS[kind](tmp_path / "run"))
    shown.open("data")
    for page in PAGES:
        shown.follow(page.TITLE)
        assert shown.text("#message") == ""
        assert shown.complaints() == []
        assert shown.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), page.NAME
        if folder := os.environ.get("COMMLENS_SCREENSHOTS"):
            shown.browser.save_screenshot(f"{folder}/{kind}-{page.NAME}.png")


def test_zooming_in_shows_collectives_and_a_click_all_ranks_of_one(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run", steps=20))
    shown.open("timeline")
    shown.click("timeline-all")
    shown.until("return location.search.includes('from=0')")
    assert "share of that time" in shown.text("#timeline-told")
    while "Each bar" not in shown.text("#timeline-told"):
        before = shown.browser.execute_script("return location.search")
        shown.click("timeline-in")
        shown.until("return location.search !== arguments[0]", before)
    shown.drawn()
    point = "{customdata: plot.data.find(t => t.type === 'bar' && t.name === 'transfer').customdata[0]}"
    shown.browser.execute_script(
        "const plot = document.querySelector('#timeline-figure .js-plotly-plot, #timeline-figure.js-plotly-plot');"
        f"dash_clientside.set_props('timeline-figure', {{clickData: {{points: [{point}]}}}})"
    )
    shown.until("return document.querySelector('#timeline-detail tbody') !== null")
    rows = shown.browser.execute_script("return document.querySelectorAll('#timeline-detail tbody tr').length")
    assert rows > 1 and shown.text("#timeline-detail").count("last to come") == 1
    address, detail = (shown.browser.execute_script("return location.search"), shown.text("#timeline-detail"))
    shown.open(f"timeline{address}")
    assert shown.text("#timeline-detail") == detail, "the address holds all that was chosen"


def test_a_step_is_brushed(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run", steps=12))
    shown.open("timeline")
    shown.browser.execute_script(
        "dash_clientside.set_props('timeline-steps', {selectedData: {range: {x: [5.6, 8.4]}}})"
    )
    shown.until("return location.search.includes('from=')")
    shown.drawn()
    labels = shown.until(
        "const found = [...document.querySelectorAll('#timeline-figure .shape-label text')].map(e => e.textContent);"
        "return found.includes('step 6') ? found : null"
    )
    # A little of what follows is shown, too.
    assert {"step 6", "step 7", "step 8"} <= set(labels) <= {"", *(f"step {number}" for number in range(6, 10))}


def test_of_many_ranks_a_click_opens_a_host_and_a_name_finds_ranks(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run", ranks=72, steps=5, collectives=8))
    lines = (
        "const own = document.getElementById(arguments[0]), plot = own.querySelector('.js-plotly-plot') ?? own;"
        "return [...plot.querySelectorAll('.ytick text')].map(each => each.textContent)"
    )
    shown.open("ranks?order=host")
    host = shown.browser.execute_script(lines, "ranks-caused")[1]
    shown.browser.execute_script("dash_clientside.set_props('ranks-caused', {clickData: {points: [{y: 1}]}})")
    shown.until("return location.search.includes('ranks=host')")
    shown.drawn()
    assert f"8 ranks of 72: host={host}" in shown.text("#ranks-left")
    assert len(shown.browser.execute_script(lines, "ranks-caused")) == 8
    shown.browser.execute_script("document.querySelector('#ranks-body tbody a').click()")
    shown.until("return document.querySelector('#page h1')?.textContent === 'Timeline'")
    shown.drawn()
    assert len(shown.browser.execute_script(lines, "timeline-figure")) == 1, "the link of one rank"
    shown.open("timeline")
    shown.browser.execute_script("dash_clientside.set_props('timeline-chosen', {value: '3, 64-71'})")
    shown.until("return document.getElementById('timeline-told').innerText.includes('9 ranks of 72')")
    shown.drawn()
    address = shown.browser.execute_script("return location.search")
    shown.open(f"timeline{address}")
    assert len(shown.browser.execute_script(lines, "timeline-figure")) == 9, "the address holds who was chosen"
    assert shown.complaints() == []
    assert shown.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_what_if_answers_and_says_how_to_try_it(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run", steps=20))
    shown.open("what-if")
    before = shown.text("#what-if-answer .verdict")
    shown.browser.execute_script("dash_clientside.set_props('what-if-cap', {value: 9})")
    shown.until("return document.querySelector('#what-if-answer .verdict').innerText !== arguments[0]", before)
    simulator = shown.runs.view("run").examined.simulator()
    from commlens.trace.changes import parse

    predicted = simulator.scenario([parse("ddp.bucket_cap_mb=75")]).predicted
    if predicted is None:
        assert "not predicted" in shown.text("#what-if-answer")
    else:
        assert f"{predicted.step_ms:.1f} ms instead of" in shown.text("#what-if-answer")
        assert "commlens verify" in shown.text("#what-if-body")
    assert "cap=75" in shown.browser.execute_script("return location.search")


def test_rows_are_filtered_and_paged(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run"))
    shown.open("data?table=collectives&rank=2&column=op&is=%3D&value=all_gather")
    told = shown.until("return document.querySelector('#data-rows p')?.innerText")
    assert told.startswith("rows 1 to 50 of ")
    ops = "return [...document.querySelectorAll('#data-rows tbody tr')].map(row => row.cells[4].innerText)"
    assert set(shown.browser.execute_script(ops)) == {"all_gather"}
    shown.click("data-on")
    shown.until("return document.querySelector('#data-rows p')?.innerText.startsWith('rows 51 to')")


def test_a_run_that_grows_refreshes_by_itself(site: Callable[..., Site], tmp_path: Path) -> None:
    whole = faulty(tmp_path / "whole", ranks=2, steps=12)
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in folder.glob("rank-*/rank.json"):
        info = json.loads(path.read_text())
        del info["end"]
        path.write_text(json.dumps(info))
    tables = {path: path.read_bytes() for path in folder.glob("rank-*/*.arrows")}
    for rank in folder.glob("rank-*"):
        for table in rank.glob("*.arrows"):
            table.write_bytes(tables[table][: len(tables[table]) // 2])
    shown = site(folder)
    shown.open("overview")
    assert "recording" in shown.text("#state")
    first = shown.text(".facts")
    for path, content in tables.items():
        path.write_bytes(content)
    shown.until("return document.querySelector('.facts').innerText !== arguments[0]", first)
    assert "10 of 12 analysed" in shown.text(".facts")
    shutil.rmtree(folder)
    shown.until("return document.querySelector('#message').innerText.includes('not there any more')")
    assert "10 of 12 analysed" in shown.text(".facts"), "what was read stays"


def test_another_run_is_chosen_and_compared(site: Callable[..., Site], tmp_path: Path) -> None:
    one, two = faulty(tmp_path / "one"), growing(tmp_path / "two")
    shown = site(one, two)
    shown.open("compare?run=one&before=two")
    assert len(shown.text("#compare-body .verdict")) > 30
    shown.browser.execute_script("dash_clientside.set_props('run', {value: 'two'})")
    shown.until("return location.search === '?run=two'")


def test_what_was_chosen_of_one_run_is_not_taken_for_another(site: Callable[..., Site], tmp_path: Path) -> None:
    one, two, damaged = (tmp_path / name for name in ("one", "two", "damaged"))
    healthy(damaged)
    (damaged / "run.json").write_text('{"run_id": "other", "format_version": 99}')
    shown = site(faulty(one), growing(two), damaged)
    shown.open("timeline?run=one")
    shown.click("timeline-in")
    shown.until("return location.search.includes('from=')")
    shown.browser.execute_script("dash_clientside.set_props('run', {value: 'two'})")
    shown.until(
        "return location.search === '?run=two' && !document.querySelector('#page').innerText.includes('8 ranks')"
    )
    shown.drawn()
    axis = "const plot = document.querySelector('#timeline-figure .js-plotly-plot, #timeline-figure.js-plotly-plot');"
    from commlens.ui.dashboard.pages.timeline import _window

    times = shown.runs.view("two").timeline
    window = _window(times, {})
    expected = [(each - times.begin_ns) / 1e6 for each in (window.begin_ns, window.end_ns)]
    assert shown.browser.execute_script(axis + "return plot.layout.xaxis.range.map(Number)") == expected
    shown.browser.execute_script("dash_clientside.set_props('run', {value: 'damaged'})")
    shown.until("return document.querySelector('#page h1').innerText === 'This run cannot be read'")
    assert "format version 99" in shown.text("#page") and "2 ranks" not in shown.text("#page")
    assert shown.browser.execute_script("return location.search") == "?run=damaged"


def test_everything_is_reached_by_keyboard(site: Callable[..., Site], tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    shown = site(faulty(tmp_path / "run"))
    shown.open("timeline")
    seen = set()
    for _ in range(40):
        shown.browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(shown.browser.execute_script("return document.activeElement.id || document.activeElement.innerText"))
    assert {"What-if", "Data", "timeline-next", "timeline-in", "theme"} <= seen


def test_a_theme_chosen_by_hand_stays(site: Callable[..., Site], tmp_path: Path) -> None:
    shown = site(faulty(tmp_path / "run"))
    shown.open("overview")
    shade = "return getComputedStyle(document.body).backgroundColor"
    first = shown.browser.execute_script(shade)
    shown.click("theme")
    other = shown.browser.execute_script(shade)
    assert first != other
    shown.open("ranks")
    assert shown.browser.execute_script(shade) == other
    shown.click("theme")
    assert shown.browser.execute_script(shade) == first
