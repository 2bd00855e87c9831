"""What a process says of its own end, tried on processes that end."""

from __future__ import annotations

import json
import subprocess
import sys
from textwrap import dedent

import pytest

TOLD = """
import atexit, json, sys
from commlens.profiler import ending
def tell():
    print(json.dumps(ending.seen()), flush=True)
"""
PRINTED = """
    import code
    code.InteractiveInterpreter().runsource("1 / 0")
    assert sys.last_value is not None
"""
EXIT = {"how": "exit"}


def told(script: str, *options: str) -> dict[str, str]:
    command = [sys.executable, *options, "-c", TOLD + dedent(script)]
    job = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    (said,) = (json.loads(line) for line in job.stdout.splitlines() if line.startswith("{"))
    return dict(said)


def error(said: str) -> dict[str, str]:
    return {"how": "exception", "error": said}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("pass", EXIT),
        ("def f():\n    raise ValueError('two\\nlines')\nf()", error("ValueError: two lines")),
        ("raise ValueError('long ' * 1000)", error(f"ValueError: {'long ' * 1000}"[:300])),
        ("raise KeyboardInterrupt", error("KeyboardInterrupt")),
        ("sys.excepthook = lambda *_: None\nraise ValueError('unseen')", error("ValueError: unseen")),
        ("raise SystemExit(3)", EXIT),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass", EXIT),
        (PRINTED, EXIT),
        (PRINTED + "\n    raise KeyError('of the job')", error("KeyError: 'of the job'")),
    ],
)
def test_an_exception_that_nobody_caught_is_told_from_one_that_was_printed(
    script: str, expected: dict[str, str]
) -> None:
    assert told("atexit.register(tell)\n" + dedent(script)) == expected


def test_an_exception_that_cannot_say_what_it_is_has_its_name() -> None:
    mute = "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute"
    found = told(f"atexit.register(tell)\n{mute}")
    assert found["how"] == "exception" and found["error"].startswith("Mute")


def test_at_a_prompt_the_last_exception_ended_nothing() -> None:
    assert told("atexit.register(tell)\n1 / 0", "-i") == EXIT


CHILD = """
    import multiprocessing, multiprocessing.util
    def child():
        multiprocessing.util.Finalize(None, tell, exitpriority=100)
        {body}
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
"""
CAUGHT = "try: raise KeyError(1)\n        except KeyError: sys.exit({code})"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", EXIT),
        ("1 / 0", error("ZeroDivisionError: division by zero")),
        ("sys.exit(3)", error("SystemExit: 3")),
        ("sys.exit(0)", EXIT),
        (CAUGHT.format(code=1), error("KeyError: 1")),
        (CAUGHT.format(code=0), EXIT),
    ],
)
def test_a_child_of_multiprocessing_tells_what_it_leaves_by(body: str, expected: dict[str, str]) -> None:
    assert told(CHILD.format(body=body)) == expected
