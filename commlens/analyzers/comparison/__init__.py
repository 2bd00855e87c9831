"""Two runs side by side: what became longer, what shorter, what of it is chance, and what else differs.

`compare(before, after) -> Comparison` is the door.
"""

from commlens.analyzers.comparison.compare import compare
from commlens.analyzers.comparison.compared import Comparison
from commlens.analyzers.comparison.side import Side, side

__all__ = ["Comparison", "Side", "compare", "side"]
