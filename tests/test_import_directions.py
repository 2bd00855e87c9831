"""Data flows down only: what each room may not import, and what the training process must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "commlens"
ABOVE = {"commlens.cluster", "commlens.render", "commlens.ui", "commlens.cli"}
FORBIDDEN = {
    "trace": {"torch", "pandas", "typer", "commlens.profiler", "commlens.analyzers", *ABOVE},
    "profiler": {"pandas", "plotly", "dash", "typer", "rich", "commlens.analyzers", *ABOVE},
    "analyzers": {"torch", "pandas", "plotly", "dash", "typer", "rich", "commlens.profiler", *ABOVE},
    "cluster": {
        "torch",
        "pandas",
        "plotly",
        "dash",
        "typer",
        "rich",
        "commlens.profiler",
        *ABOVE - {"commlens.cluster"},
    },
    "render": {"torch", "pandas", "plotly", "dash", "typer", "commlens.profiler", "commlens.ui", "commlens.cli"},
    "ui": {"torch", "pandas", "typer", "commlens.profiler", "commlens.cli"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_it_must_not(room: str) -> None:
    wrong = [
        (path.name, name)
        for path in (ROOT / room).rglob("*.py")
        for name in imported(path)
        for forbidden in FORBIDDEN[room]
        if name == forbidden or name.startswith(forbidden + ".")
    ]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import commlens")
    assert not loaded & {"numpy", "pyarrow", "torch", "typer", "rich", "commlens.trace", "commlens.analyzers"}


def test_the_training_process_loads_only_numpy_and_pyarrow() -> None:
    loaded = loaded_by("import commlens.profiler.recorder")
    assert not loaded & {"pandas", "plotly", "dash", "typer", "rich", "commlens.analyzers", "commlens.cli"}


def test_the_public_surface_is_closed_and_resolves() -> None:
    import commlens

    names = ["Finding", "Report", "__version__", "analyze", "compare", "open_run", "record", "simulate"]
    assert commlens.__all__ == names
    assert all(getattr(commlens, name) is not None for name in commlens.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        commlens.nonsense  # noqa: B018
