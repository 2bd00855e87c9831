"""How long people wait for the dashboard: a real Chromium against a run of 64 ranks x 100 steps x 500 collectives.

Times are taken in the browser: from the click to the moment when what it asked for is drawn. Needs the extra `ui`,
selenium, chromium and chromedriver.

    .venv/bin/python bench/dashboard_latency.py [--run FOLDER] [--ranks 64] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from big_run import make_run
from selenium import webdriver
from selenium.webdriver.chrome.options import Options

PAGES: Final = ("Timeline", "Ranks", "Bandwidth", "Overlap", "Critical path", "What-if", "Compare", "Data", "Overview")
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1280,900",
)  # fmt: skip

# Answers with the ms from a click until every figure of the page is drawn (and `until` holds), or -1.
TIMED: Final = """
const [act, until, finished] = arguments;
const begun = performance.now();
const drawn = () => [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('.main-svg'));
const here = new Function('return (' + until + ')');
new Function(act)();
const look = () => {
  if (drawn() && here()) { requestAnimationFrame(() => finished(performance.now() - begun)); return; }
  if (performance.now() - begun > 60000) { finished(-1); return; }
  setTimeout(look, 4);
};
look();
"""
# Answers with the ms from an act until a figure is drawn anew.
REDRAWN: Final = """
const [act, id, finished] = arguments;
const plot = document.querySelector('#' + id + ' .js-plotly-plot') || document.getElementById(id);
const begun = performance.now();
let over = false;
const end = (ms) => { if (!over) { over = true; finished(ms); } };
plot.on('plotly_afterplot', () => end(performance.now() - begun));
setTimeout(() => end(-1), 60000);
new Function(act)();
"""
MARKS: Final = """
return Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')].map(plot => (plot._fullData || []).reduce(
  (sum, trace) => sum + (trace.type === 'heatmap' ? (trace._length || 0) * ((trace.y || []).length || 1)
                                                  : (trace._length || (trace.x || []).length || 0)), 0)));
"""


class Session:
    """A server with one run, and a browser."""

    def __init__(self, run: Path) -> None:
        begun = time.monotonic()
        command = [sys.executable, "-m", "commlens", "dashboard", str(run), "--port", "0"]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        self.address = self.server.stdout.readline().strip()
        self.up_s = time.monotonic() - begun
        options = Options()
        for flag in FLAGS:
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or ""
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.browser.set_script_timeout(90)
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.marks = 0

    def first_page(self) -> float:
        """Seconds from asking for the address until the verdict and its figures are there."""
        begun = time.monotonic()
        self.browser.get(self.address)
        drawn = "[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('.main-svg'))"
        script = f"return document.querySelector('.verdict') && {drawn}"
        while not self.browser.execute_script(script):
            if time.monotonic() - begun > 120:
                raise SystemExit("the first page did not come")
            time.sleep(0.01)
        return time.monotonic() - begun

    def open(self, title: str) -> None:
        """Go to a page by its link."""
        act = f"[...document.querySelectorAll('#nav a')].find(link => link.textContent === '{title}').click()"
        until = f"document.querySelector('#page h1')?.textContent === '{title}'"
        if title == "Data":
            until += " && document.querySelector('#data-rows p')"
        ms = self.browser.execute_async_script(TIMED, act, until)
        print(f"{title}: {ms:.0f} ms", file=sys.stderr)
        self._note("page", ms)

    def redraw(self, kind: str, act: str, figure: str) -> None:
        """Do something that draws a figure anew."""
        self._note(kind, self.browser.execute_async_script(REDRAWN, act, figure))

    def until(self, kind: str, act: str, until: str) -> None:
        """Do something, and wait until a condition holds and all figures are drawn."""
        self._note(kind, self.browser.execute_async_script(TIMED, act, until))

    def change(self, kind: str, act: str, watched: str) -> None:
        """Do something that changes the words of an element."""
        before = self.browser.execute_script(f"return document.querySelector('{watched}').textContent")
        until = f"document.querySelector('{watched}').textContent !== {json.dumps(before)}"
        self._note(kind, self.browser.execute_async_script(TIMED, act, until))

    def _note(self, kind: str, ms: Any) -> None:
        if ms < 0:
            raise SystemExit(f"{kind}: nothing came within a minute")
        self.times[kind].append(float(ms))
        self.marks = max(self.marks, int(self.browser.execute_script(MARKS)))

    def server_mib(self, which: str) -> float:
        """Memory of the server now (VmRSS) or at most (VmHWM), MiB."""
        lines = Path(f"/proc/{self.server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))

    def close(self) -> None:
        """End both."""
        self.browser.quit()
        self.server.terminate()
        self.server.wait(30)


def click(name: str) -> str:
    """Script that clicks what has this id."""
    return f"document.getElementById('{name}').click()"


def radio(name: str, place: int) -> str:
    """Script that chooses the n-th of some choices."""
    return f"document.querySelectorAll('#{name} input')[{place}].click()"


def slide(name: str, place: int) -> str:
    """Script that moves a slider to its n-th mark."""
    return f"window.dash_clientside.set_props('{name}', {{value: {place}}})"


def visit(session: Session, rounds: int) -> None:
    """Everything a person does, some times over."""
    for number in range(rounds):
        for title in PAGES:
            session.open(title)
        session.open("Timeline")
        for act in ("next", "in", "in", "in", "in", "out", "next", "all", "previous", "in"):
            session.redraw("timeline", click(f"timeline-{act}"), "timeline-figure")
        for place in (1, 2, 0):
            session.redraw("timeline", radio("timeline-order", place), "timeline-figure")
        session.open("Ranks")
        for place, order in ((1, "worst"), (2, "host"), (0, "rank")):
            session.until("order", radio("ranks-order", place), f"location.search.includes('order={order}')")
        session.open("What-if")
        for name, places in (("cap", (3, 6, 9, 0)), ("bandwidth", (6, 8, 3)), ("latency", (1, 3))):
            for place in places:
                session.change("what-if", slide(f"what-if-{name}", place), "#what-if-answer")
        session.open("Data")
        for act in ("on", "on", "back"):
            session.change("rows", click(f"data-{act}"), "#data-rows p")
        print(f"round {number + 1} of {rounds}", file=sys.stderr)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run that is there (default: one is made)")
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=500, help="of each rank and step")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or Path(folder) / "run"
        if given.run is None:
            make_run(run, given.ranks, given.steps, given.collectives, seed=1)
        session = Session(run)
        try:
            first = [session.first_page() for _ in range(3)]
            visit(session, given.rounds)
            print(json.dumps(_result(session, first)))
        finally:
            session.close()


def _result(session: Session, first: list[float]) -> dict[str, Any]:
    everything = [ms for times in session.times.values() for ms in times]
    by_kind = {
        f"p95_{kind.replace('-', '_')}_ms": round(float(np.percentile(times, 95)), 1)
        for kind, times in session.times.items()
    }
    return {
        "server_up_s": round(session.up_s, 2),
        "first_page_s": round(first[0], 3),
        "first_page_again_s": round(min(first[1:]), 3),
        "interactions": len(everything),
        "p50_interaction_ms": round(float(np.median(everything)), 1),
        "p95_interaction_ms": round(float(np.percentile(everything, 95)), 1),
        "worst_interaction_ms": round(max(everything), 1),
        **by_kind,
        "most_marks": session.marks,
        "server_mib": round(session.server_mib("VmRSS"), 1),
        "server_peak_mib": round(session.server_mib("VmHWM"), 1),
    }


if __name__ == "__main__":
    main()
