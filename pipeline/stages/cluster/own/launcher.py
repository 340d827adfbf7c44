"""In the place of a worker that ``raylet`` starts: has it forked, and ends.

    python -I -S launcher.py SOCKET SCRIPT ARGUMENT...

It imports next to nothing, for it is run for every worker.
"""

import json
import os
import socket
import sys


def main() -> None:
    """Have ``nursery.py`` fork the worker; if it does not, become the worker, as Ray has it."""
    address, *worker = sys.argv[1:]
    if not _is_forked(address, worker):
        os.execv(sys.executable, [sys.executable, *worker])


def _is_forked(address: str, worker: list[str]) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect(f"\0{address}")
            nursery.sendall(json.dumps([worker, dict(os.environ), _oom_score()]).encode())
            nursery.shutdown(socket.SHUT_WR)
            return bool(nursery.recv(1))
    except OSError:
        return False


def _oom_score() -> str:
    with open("/proc/self/oom_score_adj") as file:
        return file.read()


if __name__ == "__main__":
    main()
