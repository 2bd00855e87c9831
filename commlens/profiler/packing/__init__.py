"""Node-local recording: ranks write into a folder of their node, one process of each node packs it into the run's.

`rank.Node` is the door, seen from a rank. `process` is the program that packs, a process of its own: no thread of a
training process ever touches shared storage, so none can hang with it, not even at its exit; what packing needs is not
loaded into a training process, and its interpreter lock is not shared; it outlives ranks that are killed. `asked` reads
the settings, `presence` tells who is there, `schedule` when a pack is due, `state` what the packing process says.
"""
