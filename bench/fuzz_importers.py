"""Feeds every importer damaged files and counts what should not happen.

Small valid files (cut from the real ones in --traces, and made by hand: `fuzz_seeds.py`) are damaged at random
(`fuzz_mutations.py`), and each goes the way a user's file goes: its format is told from its first bytes, it is made
into a run, of one in twenty the run is opened, analysed and the report written; logs of nccl-tests are read as a
calibration. What must not happen:

  escape   anything but a CommlensError comes out
  message  an error has several lines, or does not name the file
  warning  Python or numpy warns
  slow     a file takes over 5 s, twice
  hang     over 20 s (the process is killed), or the process dies
  memory   the process grows to more than twice what it needs for valid files; for a gzip bomb, a valid file as large

Two processes work, a third watches them. Files that did any of this are kept in the folder --keep with what happened,
three of a kind. The same --seed gives the same files. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gzip
import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fuzz_mutations import BOMB, mutated
from fuzz_seeds import FORMATS, seeds

import commlens
from commlens.errors import CommlensError
from commlens.render.report import print_report
from commlens.render.words import open_console
from commlens.trace.calibration import CALIBRATION_FILE, read_calibration
from commlens.trace.importers import event_pieces, trace_events
from commlens.trace.importers.content import Content
from commlens.trace.importers.convert import convert
from commlens.trace.importers.formats import importer

TRACES = Path(__file__).parents[2] / "shared" / "traces"
WORKERS = 2
SLOW_S, HUNG_S = 5.0, 20.0
MOST_MEMORY = 2.0  # times what valid files need
ANALYSED = 20  # one in so many
ADDRESS_SPACE = 8 << 30  # bytes: a file that asks for more shows as a MemoryError, not as a dead machine
KEPT = 3  # files of each kind of failure
NAME = "all_reduce-rank0.trace"
# Sizes within the reader of traces, made smaller for some files, as if those were so much longer.
SIZES = [
    (module, name) for module in (trace_events, event_pieces) for name in ("PIECE", "_DAMAGED", "_LONGEST", "_WINDOW")
]
SIZES_NOW = {(module, name): getattr(module, name) for module, name in SIZES if hasattr(module, name)}
SMALLER = (1, 16, 64)


@dataclass
class Outcome:
    """What became of one file; `failures` is empty where all is well.

    Attributes:
        accepted: it was read; else it was refused with an error.
        seconds: wall time.
        memory: largest memory of the process over that of valid files.
        failures: (kind, what), such as ("escape", "KeyError in kineto_rows.py:_code").
        detail: for a person.
    """

    accepted: bool = False
    seconds: float = 0.0
    memory: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)
    detail: str = ""


def main() -> None:
    options = parse()
    totals = {}
    print(f"{'format':24s}{'files':>8s}{'accepted':>10s}{'refused':>9s}", end="")
    print("".join(f"{kind:>9s}" for kind in KINDS) + f"{'slowest s':>11s}{'memory':>8s}{'time s':>8s}", flush=True)
    with tempfile.TemporaryDirectory(prefix="commlens-fuzz-") as folder:
        for format in options.only or FORMATS:
            totals[format] = Total()
            began = time.perf_counter()
            for number, outcome in outcomes(format, options, Path(folder)):
                totals[format].add(outcome)
                keep(options.keep, format, number, outcome, Path(folder), totals[format].seen)
            print(totals[format].line(format, time.perf_counter() - began), flush=True)
    for format, total in totals.items():
        for (kind, what), count in total.seen.most_common():
            print(f"{format}: {count} x {kind}: {what}")
    print(json.dumps(result(totals)))
    sys.exit(any(total.seen for total in totals.values()))


KINDS = ("escape", "message", "warning", "slow", "hang", "memory")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=FORMATS, nargs="+", help="formats; default: all")
    parser.add_argument("--number", type=int, help="only this file of each format")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of real files")
    parser.add_argument("--keep", type=Path, help="folder for files that failed")
    return parser.parse_args()


@dataclass
class Total:
    """Sums of a format."""

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    memory: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.accepted += outcome.accepted
        self.refused += not outcome.accepted
        self.slowest = max(self.slowest, outcome.seconds)
        self.memory = max(self.memory, outcome.memory)
        self.seen.update(outcome.failures)
        self.kinds.update({kind for kind, _ in outcome.failures})

    def line(self, format: str, seconds: float) -> str:
        counts = "".join(f"{self.kinds[kind]:9d}" for kind in KINDS)
        files = f"{self.accepted + self.refused:8d}{self.accepted:10d}{self.refused:9d}"
        return f"{format:24s}{files}{counts}{self.slowest:11.2f}{self.memory:8.2f}{seconds:8.0f}"


def result(totals: dict[str, Total]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for format, total in totals.items():
        numbers |= {f"{format}_inputs": total.accepted + total.refused, f"{format}_escapes": total.kinds["escape"]}
    every = list(totals.values())
    plural = {"escape": "escapes", "message": "bad_messages", "warning": "warnings", "slow": "slow", "hang": "hangs"}
    numbers |= {name: sum(total.kinds[kind] for total in every) for kind, name in plural.items()}
    numbers |= {"accepted": sum(t.accepted for t in every), "errors": sum(t.refused for t in every)}
    numbers |= {"slowest_s": round(max(t.slowest for t in every), 3)}
    return numbers | {"worst_memory_ratio": round(max(t.memory for t in every), 3)}


def keep(
    folder: Path | None, format: str, number: int, outcome: Outcome, made: Path, seen: Counter[tuple[str, str]]
) -> None:
    """Keeps a file that failed, and why, unless there are enough of its kind."""
    for kind, what in outcome.failures if folder else ():
        if folder and seen[kind, what] <= KEPT:
            name = f"{format}-{number}-{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(made / str(number % WORKERS) / NAME, folder / name)
            (folder / f"{name}.txt").write_text(f"{what}\n{outcome.detail}\n", errors="backslashreplace")


# ---- the watcher


def outcomes(format: str, options: argparse.Namespace, folder: Path) -> Iterator[tuple[int, Outcome]]:
    """What became of each file. The n-th goes to worker n modulo their number; its folder holds the file still."""
    workers = [Worker(format, options, folder / str(place)) for place in range(WORKERS)]
    numbers = range(options.inputs) if options.number is None else [options.number]
    waiting = [iter([number for number in numbers if number % WORKERS == place]) for place in range(WORKERS)]
    busy = {place: number for place in range(WORKERS) if (number := workers[place].next(waiting[place])) is not None}
    while busy:
        for place in sorted(busy):
            worker = workers[place]
            if (outcome := worker.outcome(busy[place])) is not None:
                yield busy.pop(place), outcome
                if (number := worker.next(waiting[place])) is not None:
                    busy[place] = number
        wait([workers[place].connection for place in busy], 1.0)
    for worker in workers:
        worker.end()


class Worker:
    """A process that reads files, and is replaced where it hangs or dies."""

    def __init__(self, format: str, options: argparse.Namespace, folder: Path) -> None:
        self._task = format, options.traces, options.seed, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, *self._task), daemon=True)
        self._process.start()
        other.close()
        if self._wait(120.0) is not True:
            sys.exit("a worker did not start")

    def next(self, numbers: Iterator[int]) -> int | None:
        """Gives it the next file, None where there is none."""
        number = next(numbers, None)
        if number is not None:
            self.connection.send(number)
            self._deadline = time.perf_counter() + HUNG_S
        return number

    def outcome(self, number: int) -> Outcome | None:
        """What became of the file, None where it is still being read."""
        if not self.connection.poll() and time.perf_counter() < self._deadline:
            return None
        found = self._wait(0.0)
        if isinstance(found, Outcome):
            return found
        what = "the process died" if found is EOFError else "the process had to be killed"
        self._process.kill()
        self._process.join()
        self._start()
        return Outcome(seconds=HUNG_S, failures=[("hang", what)], detail=f"file {number}")

    def _wait(self, seconds: float) -> Any:
        try:
            return self.connection.recv() if self.connection.poll(seconds) else None
        except (EOFError, ConnectionError):
            return EOFError

    def end(self) -> None:
        self.connection.send(None)
        self._process.join(5.0)
        self._process.kill()


# ---- the worker


def serve(connection: Connection, format: str, traces: Path, seed: int, folder: Path) -> None:
    """Reads the files whose numbers come; first valid ones, to learn how much memory those need."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    folder.mkdir(parents=True, exist_ok=True)
    valid = seeds(format, traces)
    read = Reader(format, folder)
    needed = _needed(read, valid)
    connection.send(True)
    while (number := connection.recv()) is not None:
        rng = random.Random(f"{seed}/{format}/{number}")
        resize(rng.choice(SMALLER))
        data = mutated(format, rng.choice(valid), rng)
        outcome = read(data, analysed=number % ANALYSED == 0)
        if outcome.seconds > SLOW_S:  # twice, for the machine may have been busy
            again = read(data, analysed=number % ANALYSED == 0)
            outcome.seconds = min(outcome.seconds, again.seconds)
        connection.send(judged(outcome, needed[_is_bomb(read.path)]))


def _needed(read: Reader, valid: list[bytes]) -> tuple[float, float]:
    """Memory of the process for valid files, and for one padded to the size of a bomb."""
    path, read.path = read.path, read.path.with_name(f"valid-{NAME}")
    refused = [outcome for data in valid if not (outcome := read(data, analysed=True)).accepted]
    assert not refused, refused
    peaks = [read(data, analysed=True).memory for data in (*valid, *map(gzip.compress, valid)) * 2]
    padded = read(gzip.compress(valid[0] + b" " * BOMB, 1), analysed=True).memory
    read.path = path
    return max(peaks), max(*peaks, padded)


def _is_bomb(path: Path) -> bool:
    """Also where the bomb is damaged and unfolds to less."""
    return sum(map(len, Content(path).chunks())) > BOMB // 6


def resize(smaller: int) -> None:
    for (module, name), size in SIZES_NOW.items():
        setattr(module, name, size // smaller)


def judged(outcome: Outcome, valid: float) -> Outcome:
    """With the failures that are a matter of size."""
    outcome.memory /= valid
    if outcome.seconds > SLOW_S:
        outcome.failures.append(("slow", "over 5 s"))
        outcome.detail += f"\n{outcome.seconds:.1f} s"
    if outcome.memory > MOST_MEMORY:
        outcome.failures.append(("memory", "over twice that of valid files"))
        outcome.detail += f"\n{outcome.memory:.2f} times the memory of valid files"
    return outcome


class Reader:
    """Reads one file the way a user's goes; `path` is where it lies then."""

    def __init__(self, format: str, folder: Path) -> None:
        self._module, self._folder = format.removesuffix("_json").removesuffix("_pickle"), folder
        self.path = folder / NAME
        self._way: Callable[[bool], None] = self._as_calibration if format == "nccl_tests" else self._as_run
        if format == "nccl_tests":
            _job(folder / "job")

    def __call__(self, data: bytes, analysed: bool) -> Outcome:
        self.path.write_bytes(data)
        for old in self._folder.glob("run*"):
            shutil.rmtree(old)
        outcome = Outcome()
        _let_go()
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            outcome.accepted = self._tried(outcome, lambda: self._way(analysed))
            outcome.memory, outcome.seconds = _peak(), time.perf_counter() - began
            if outcome.detail.startswith("RunNotFoundError"):  # what the door refuses its importer must refuse as well
                self._tried(outcome, lambda: importer(self._module).read(self.path))
        for each in warned:
            outcome.failures.append(("warning", f"{Path(each.filename).name}:{each.lineno} {each.message}"))
        return outcome

    def _tried(self, outcome: Outcome, way: Callable[[], object]) -> bool:
        try:
            way()
        except CommlensError as error:
            outcome.failures += self._of_message(str(error))
            outcome.detail = repr(error)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome.failures.append(("escape", _where(error)))
            outcome.detail = traceback.format_exc()
        else:
            return True
        return False

    def _of_message(self, message: str) -> list[tuple[str, str]]:
        found = []
        if len(message.splitlines()) != 1 or not message.isprintable():
            found.append(("message", "not one printable line"))
        if self.path.name not in message:
            found.append(("message", "does not name the file"))
        return found

    def _as_run(self, analysed: bool) -> None:
        run = self._folder / "run"
        run.mkdir()
        convert([self.path], run, "imported-fuzz")
        if analysed:
            _report(run)

    def _as_calibration(self, analysed: bool) -> None:
        read_calibration(self.path)
        if analysed:
            shutil.copy(self.path, self._folder / "job" / CALIBRATION_FILE)
            _report(self._folder / "job")


def _job(folder: Path) -> None:
    """A run for calibrations to be used in."""
    source = folder.with_name(f"job-{NAME}")
    source.write_bytes(seeds("kineto", folder)[-1])
    folder.mkdir()
    convert([source], folder, "imported-job")


def _report(run: Path) -> None:
    """The report of a run, as text and as JSON."""
    opened = commlens.open_run(run)
    report = commlens.analyze(opened)
    json.dumps(report.to_dict(), allow_nan=False)
    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_report(report, open_console(text, 100))
    text.flush()
    assert all(len(note.splitlines()) == 1 for note in opened.notes), f"a note of several lines: {opened.notes}"


def _where(error: Exception) -> str:
    """Which error, and the innermost place of commlens that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "commlens" in Path(frame.filename).parts] or list(frames)
    return f"{type(error).__name__} in {Path(own[-1].filename).name}:{own[-1].name}"


def _let_go() -> None:
    """Gives free memory back, which would count as the next file's, and forgets the largest so far."""
    with contextlib.suppress(OSError, AttributeError):  # of another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The largest memory of this process since the peak was forgotten, bytes."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
