"""Readings of the node's links and devices while a job runs: one sampler a node.

`sampler.Counters` is the door. A source (a file a kind) knows where its numbers
are and what they mean; `sampler` decides when they are read, `readings` which of
them are kept, `election` which rank reads them.
"""
