"""The command line as a user meets it: in this process, and stopped from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from commlens.cli import app


def commlens(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["commlens", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(ended.value.code or 0)


def stop(command: subprocess.Popen[str], number: signal.Signals) -> None:
    """Stop a command, which leads a session of its own, as a terminal or a scheduler does."""
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # a terminal sends it to every process of the command line
    else:
        command.send_signal(number)
