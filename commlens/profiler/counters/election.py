"""Which rank of a node reads its counters: the one whose process holds an abstract socket of the run's name.

Such a name lives in the process' network namespace, as the counters of most links do, needs no file and no launcher,
and is free again when its process ends, however that ends.
"""

from __future__ import annotations

import errno
import os
import socket


class Seat:
    """The sampler's seat of one run on one node.

    Args:
        run_id: the run's name; two runs on a node have a sampler each.
    """

    def __init__(self, run_id: str) -> None:
        self._name = f"\0commlens-counters-{os.getuid()}-{run_id}"[:100]
        self._held: socket.socket | None = None

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def take(self) -> bool:
        """Whether this process has the seat, taking it where it is free.

        Where sockets have no such names, local rank 0 has it.
        """
        if self._held is not None:
            return True
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            taken.bind(self._name)
        except OSError as error:
            if error.errno == errno.EADDRINUSE or os.environ.get("LOCAL_RANK", "0") != "0":
                taken.close()
                return False
        self._held = taken
        return True

    def leave(self) -> None:
        """Frees the seat; in the child of a fork its copy, which would hold it beyond the parent's end."""
        held, self._held = self._held, None
        if held is not None:
            held.close()
