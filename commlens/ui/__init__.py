"""Pages: figures of a report, the one-file report, the dashboard. Reads reports, computes no metric."""

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parent / "assets"  # style sheets and scripts of pages
