"""The one-file report in a real browser, from a file, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_runs import report_of

from commlens.ui import figures
from commlens.ui.figures import frame
from commlens.ui.html import to_html

pytestmark = pytest.mark.browser
wait = pytest.importorskip("selenium.webdriver.support.ui", reason="selenium is not installed")
LONGEST = 60  # s, for a busy machine


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the report of a run; at the end nothing of it is left in the browser."""

    def opened(name: str, dark: bool = False) -> Any:
        path = tmp_path / f"{name}.html"
        path.write_text(to_html(report_of(name)), encoding="utf-8")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")


def until(browser: Any, script: str) -> Any:
    return wait.WebDriverWait(browser, LONGEST).until(lambda driver: driver.execute_script(f"return {script}"))


def drawn(browser: Any) -> int:
    return int(until(browser, "document.documentElement.dataset.drawn"))


def errors(browser: Any) -> list[dict[str, Any]]:
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("name", ["faulty", "imported", "hostile"])
def test_every_figure_is_drawn(page: Any, name: str) -> None:
    browser = page(name)
    expected = sum(not frame.empty(draw(report_of(name))) for draw in figures.ALL if draw is not figures.links)
    assert drawn(browser) == expected
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= expected
    assert errors(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_hostile_names_do_nothing(page: Any) -> None:
    browser = page("hostile")
    drawn(browser)
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelectorAll('main img, .plot b, .plot a').length") == 0
    assert "<img src=x onerror" in browser.execute_script("return document.querySelector('#costs').innerText")


def test_no_other_script_runs_and_nothing_is_loaded(page: Any) -> None:
    browser = page("faulty")
    drawn(browser)
    browser.execute_script(
        "const bad = document.createElement('script'); bad.textContent = 'window.hacked = 1';"
        "document.body.append(bad);"
        "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.hacked=2\" id=bad>');"
        "document.getElementById('bad').click();"
        "const image = new Image(); image.onerror = () => { window.refused = 1 };"
        "image.src = 'https://example.org/x.png'"
    )
    assert until(browser, "window.refused") == 1
    assert browser.execute_script("return window.hacked") is None


def test_a_figure_can_be_saved_as_a_picture(page: Any) -> None:
    browser = page("single")
    drawn(browser)
    browser.execute_script("Plotly.toImage(document.querySelector('.plot')).then(done => { window.saved = done })")
    assert until(browser, "window.saved").startswith("data:image/png;base64,")
    assert errors(browser) == []


@pytest.mark.parametrize("width", [1280, 1920])
def test_it_fits_the_window(page: Any, width: int) -> None:
    browser = page("faulty")
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        drawn(browser)
        assert until(browser, "document.documentElement.scrollWidth <= innerWidth")
        wide = "[...document.querySelectorAll('.plot')].every(each => each.scrollWidth <= each.clientWidth + 1)"
        assert until(browser, wide)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_light_and_dark(page: Any) -> None:
    told = {}
    for dark in (False, True):
        browser = page("faulty", dark)
        drawn(browser)
        style = "getComputedStyle(document.querySelector('.xtick text')).fill"
        told[dark] = browser.execute_script(f"return [{style}, getComputedStyle(document.body).backgroundColor]")
    assert told[False] == ["rgb(28, 33, 38)", "rgb(255, 255, 255)"]
    assert told[True] == ["rgb(230, 233, 236)", "rgb(20, 24, 29)"]


def test_a_browser_that_cannot_unpack_says_so(page: Any) -> None:
    browser = page("single")
    script = {"source": "delete window.DecompressionStream"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        browser.refresh()
        assert "cannot unpack the figures" in until(browser, "document.querySelector('.plot').innerText")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


def test_on_paper_figures_are_as_wide_as_it(page: Any) -> None:
    browser = page("faulty")
    drawn(browser)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert until(browser, "document.querySelector('.plot .main-svg').getBoundingClientRect().width === 690")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert until(browser, "document.querySelector('.plot .main-svg').getBoundingClientRect().width > 690")
