"""What to change: every technique of the field's surveys, judged for one job and priced by the simulator."""
