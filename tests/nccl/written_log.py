"""Files as the plugin writes them, made in Python."""

from pathlib import Path
from typing import Any

import numpy as np

from commlens.trace.nccl import layout
from commlens.trace.nccl.operations import FUNCS

DEVICE_BEHIND_NS = 500_000
WORDS = {op: word for word, op in FUNCS.items()}


class Written:
    """Records in the order they are added."""

    def __init__(self, pid: int, monotonic_ns: int = 0, wall_ns: int = 0) -> None:
        self.header = np.zeros((), layout.HEADER)
        for name, value in (("version", layout.VERSION), ("header_bytes", layout.HEADER_BYTES)):
            self.header[name] = value
        self.header["magic"], self.header["record_bytes"] = layout.MAGIC, layout.RECORD_BYTES
        self.header["pid"], self.header["host"] = pid, b"node"
        self.header["monotonic_ns"], self.header["wall_ns"] = monotonic_ns, wall_ns
        self.records: list[bytes] = []
        self.names: dict[str, int] = {}
        self.orders: dict[int, int] = {}

    def communicator(self, index: int, name: str, **values: int) -> None:
        record = np.zeros((), layout.COMMUNICATOR_RECORD)
        record["kind"], record["index"], record["name"], record["device"] = layout.COMMUNICATOR, index, name.encode(), 0
        for key, value in values.items():
            record[key] = value
        self._add(record)

    def add(self, record: Any) -> None:
        """Numbers the operation and adds it."""
        word = record["word"]
        own = record["record"]
        own["func"] = self._name(word)
        index = int(own["communicator"])
        own["order"] = self.orders.get(index, 0)
        self.orders[index] = self.orders.get(index, 0) + 1
        self._add(own)

    def _name(self, word: str) -> int:
        if word not in self.names:
            self.names[word] = len(self.names) + 1
            record = np.zeros((), layout.NAME_RECORD)
            record["kind"], record["id"], record["text"] = layout.NAME, self.names[word], word.encode()
            self._add(record)
        return self.names[word]

    def _add(self, record: Any) -> None:
        words = np.frombuffer(record.tobytes(), "<u4").copy()
        sums = 0x434F4D4D + sum(int(word) * (2 * i + 0x9E3779B1) for i, word in enumerate(words) if i != 1)
        words[1] = sums % 2**32
        self.records.append(words.tobytes())

    def save(self, path: Path) -> None:
        path.write_bytes(self.header.tobytes() + b"".join(self.records))


def operation(
    communicator: int, op: str, size: int, peer: int, enqueued_ns: int, before_ns: int, start: int, end: int
) -> dict[str, Any]:
    """An operation whose kernels began and ended at host times `start` and `end`, read 40 ns later."""
    record = np.zeros((), layout.OPERATION_RECORD)
    message = op in ("send", "recv")
    record["kind"], record["communicator"], record["bytes"], record["peer"] = layout.OPERATION, communicator, size, peer
    record["flags"] = layout.COMPLETE | (layout.MESSAGE if message else 0) | (layout.SEND if op == "send" else 0)
    record["channels"] = record["channels_ended"] = 2
    record["enqueued_ns"], record["before_ns"] = enqueued_ns, before_ns
    record["device_start_ns"], record["device_stop_ns"] = start - DEVICE_BEHIND_NS, end - DEVICE_BEHIND_NS
    record["offset_most_ns"] = DEVICE_BEHIND_NS + 40
    record["host_start_ns"], record["host_stop_ns"] = start + 40, end + 40
    return {"record": record, "word": WORDS[op]}
