"""What runs inside the job: attaches, records, writes.

Door: `attach` (by COMMLENS, through `commlens.pth`) and `record()`. Must not
import analyzers, ui or cli, nor pandas, plotly, dash or typer: only numpy,
pyarrow and the job's own torch are loaded.
"""

from __future__ import annotations

from commlens.profiler.attach import install as attach
from commlens.profiler.attach import record

__all__ = ["attach", "record"]
