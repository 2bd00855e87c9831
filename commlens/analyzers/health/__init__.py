"""Whether a recording is whole and its ranks agree, and what a machine lets the recorder see: for the doctor."""
