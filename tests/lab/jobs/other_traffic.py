"""Somebody else's traffic: `sink PORT` takes what comes, `source ADDRESS PORT ON_S OFF_S` sends in turns, for ever."""

from __future__ import annotations

import socket
import sys
import time


def sink(port: int) -> None:
    with socket.create_server(("", port)) as server:
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 20):
                pass


def source(address: str, port: int, on_s: float, off_s: float) -> None:
    chunk = bytes(1 << 16)
    with _connected(address, port) as connection:
        while True:
            until = time.monotonic() + on_s
            while time.monotonic() < until:
                connection.sendall(chunk)
            time.sleep(off_s)


def _connected(address: str, port: int) -> socket.socket:
    for _ in range(200):
        try:
            return socket.create_connection((address, port))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError(f"nobody listens at {address}:{port}")


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(int(sys.argv[2]))
    else:
        source(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
