"""Makes `tests/` importable, for `synthetic`."""
