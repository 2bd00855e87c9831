"""What NCCL's profiler plugin of commlens wrote: `nccl-<host>-<process>.events`, a file a process."""
