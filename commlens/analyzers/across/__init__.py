"""Stage two: what only all ranks together can tell. Pure functions on the columns of stage one."""
