"""One file a page: NAME (in addresses), TITLE, QUESTION, `layout(view, query, runs)`, `register(app, runs)`."""

from importlib import import_module
from types import ModuleType
from typing import Final

_NAMES: Final = ("overview", "timeline", "ranks", "bandwidth", "overlap", "path", "what_if", "compare", "data")
PAGES: Final[tuple[ModuleType, ...]] = tuple(import_module(f"{__name__}.{name}") for name in _NAMES)
