"""Style sheets and scripts that pages carry within themselves, and the policy that lets no other run."""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import lru_cache
from importlib.resources import files

_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
    " form-action 'none'"
)


@lru_cache(maxsize=8)
def asset(name: str) -> str:
    """The text of a file beside the pages."""
    return (files("commlens.ui") / "assets" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def plotly_source() -> str:
    """Plotly's own script, of the installed package."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@lru_cache(maxsize=1)
def packed_plotly() -> str:
    """The same, gzip and base64: a third of the size, the same every time."""
    return base64.b64encode(gzip.compress(plotly_source().encode(), 9, mtime=0)).decode()


def policy(*scripts: str) -> str:
    """A Content-Security-Policy for a page that runs these scripts, each exactly as it is, and loads nothing.

    Styles are free: plotly sets them, and with nothing to load from they can tell nobody anything.
    """
    return _POLICY.format(scripts=" ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'")


@lru_cache(maxsize=8)
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
