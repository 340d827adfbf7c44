"""In the place of a worker that ``raylet`` starts: has it forked, and ends.

    python -I -S launcher.py SOCKET SCRIPT ARGUMENT...

It imports next to nothing, for it is run for every worker.
"""

import json
import os
import socket
import struct
import sys

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of who listens."""


def main() -> None:
    """Have ``nursery.py`` fork the worker; if it does not, become the worker, as Ray has it."""
    address, *worker = sys.argv[1:]
    if not _is_forked(address, worker):
        os.execv(sys.executable, [sys.executable, *worker])


def _is_forked(address: str, worker: list[str]) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect(f"\0{address}")
            if not _is_ours(nursery):
                return False
            nursery.sendall(json.dumps([worker, dict(os.environ), _oom_score()]).encode())
            nursery.shutdown(socket.SHUT_WR)
            return bool(nursery.recv(1))
    except OSError:
        return False


def _is_ours(nursery: socket.socket) -> bool:
    """Whether a process of this user listens. Its name is in the command lines that others see, who
    might listen there first, and the environment has secrets."""
    credentials = nursery.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user == os.getuid()


def _oom_score() -> str:
    with open("/proc/self/oom_score_adj") as file:
        return file.read()


if __name__ == "__main__":
    main()
