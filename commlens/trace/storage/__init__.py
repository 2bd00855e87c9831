"""Where the files of runs lie: folders, packs of a node, and whatever fsspec reaches.

A folder of this machine is a plain `Path` and needs none of it: fsspec is imported for addresses with "://" alone.
"""
