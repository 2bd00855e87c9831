"""What a run's columns say: pure functions from a run to a report.

`analyze(run) -> Report` is the door. This room opens no files and loads neither torch nor pandas.
"""

from commlens.analyzers.report import Abstention, Finding, Report
from commlens.analyzers.stages import analyze

__all__ = ["Abstention", "Finding", "Report", "analyze"]
