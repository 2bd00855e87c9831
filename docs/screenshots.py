"""Makes the pictures of these pages from a real run: records a job with a planted fault, and opens the dashboard on it.

    .venv/bin/python docs/screenshots.py [--run FOLDER]

Needs the extra `ui`, selenium, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from selenium import webdriver

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = Path(__file__).parent / "images"
JOB: Final = ROOT / "samples" / "fault_giant_bucket.py"
PICTURES: Final = {
    "overview": "overview",
    "timeline": "timeline",
    "ranks": "ranks",
    "what-if": "what-if?bandwidth=x2",
}
FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
)
WIDTH, TALLEST = 1280, 1250
DRAWN: Final = """
const charts = [...document.querySelectorAll('.chart')];
return charts.length > 0 && charts.every(chart => chart.querySelector('.main-svg'));
"""


def record(folder: Path) -> None:
    """Run the job with two ranks, in a folder of its own, and as root under a host name that says nothing."""
    for name in ("common.py", "planted.py", JOB.name):
        shutil.copy(JOB.with_name(name), folder / name)
    torchrun = Path(sys.executable).with_name("torchrun")
    command = f"{torchrun} --nproc-per-node 2 {JOB.name}"
    if os.geteuid() == 0 and shutil.which("unshare"):
        command = f"unshare --uts sh -c 'hostname localhost && {command}'"
    where = {**os.environ, "COMMLENS": "commlens-runs"}
    subprocess.run(command, shell=True, cwd=folder, env=where, check=True, stdout=subprocess.DEVNULL)


def picture(browser: Any, address: str, path: Path) -> None:
    """Open a page, wait until its figures are drawn, and keep what is seen."""
    browser.set_window_size(WIDTH, TALLEST)
    browser.get(address)
    deadline = time.monotonic() + 60
    while not browser.execute_script(DRAWN):
        if time.monotonic() > deadline:
            raise SystemExit(f"{address} was not drawn within a minute")
        time.sleep(0.1)
    height = browser.execute_script("return document.querySelector('.shell').scrollHeight")
    browser.set_window_size(WIDTH, min(height, TALLEST))
    time.sleep(0.5)  # figures follow the window
    browser.save_screenshot(str(path))


def main() -> None:
    """Record, serve, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run that is there (default: one is recorded)")
    given = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if given.run is None:
            record(Path(folder))
        run = given.run.resolve() if given.run else "commlens-runs"
        command = [sys.executable, "-m", "commlens", "dashboard", str(run), "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            for name, page in PICTURES.items():
                picture(browser, address + page, IMAGES / f"{name}.png")
        finally:
            browser.quit()
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
