"""What sums can tell: of runs, or of their later parts, that were recorded as aggregates only."""
