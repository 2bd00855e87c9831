"""Causes of lost time: each file turns facts into findings of one kind."""
