"""Figures of a report: pure functions, Report -> plotly's Figure. plotly is loaded with the first one that is made.

Where there is nothing to show a figure says in words why. `frame.alt` is its description in a sentence, `frame.empty`
whether it only says why, `frame.marks` how much there is to draw (at most `frame.MOST_MARKS`). Above 64 ranks what is
alike is drawn together (`commlens.analyzers.at_scale`).
"""

from commlens.ui.figures.bandwidths import bandwidth as bandwidth
from commlens.ui.figures.by_band import rank_budgets as rank_budgets
from commlens.ui.figures.by_rank import ranks as ranks
from commlens.ui.figures.by_step import steps as steps
from commlens.ui.figures.message_sizes import sizes as sizes
from commlens.ui.figures.overlapped import overlap as overlap
from commlens.ui.figures.path_parts import critical_path as critical_path
from commlens.ui.figures.time_budget import budget as budget
from commlens.ui.figures.used_links import links as links

ALL = (budget, steps, ranks, rank_budgets, bandwidth, overlap, critical_path, links, sizes)
