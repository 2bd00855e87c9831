"""Views of single collectives and moments, made on demand from what was examined: what pages zoom into."""
