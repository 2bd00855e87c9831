"""A report of more ranks than a screen has lines: what is alike together, the worst first; pure functions of it."""
