"""Reports as sections of words and tables: one wording for the command line and for pages. Computes no metric."""
