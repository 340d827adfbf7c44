"""Child processes that never outlive the tests, and free ports for them to listen on."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

# argv: the signal that the kernel sends when the parent dies, however it dies, then the command.
# ``preexec_fn`` would do the same, but Python 3.12 warns of it in a process that has threads.
_TIED_TO_PARENT = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1]))\n"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output in ``log``; it gets ``death_signal`` when this process
    dies.

    The child has a session of its own, so that Ctrl-C reaches pytest alone and fixtures stop their
    servers in order.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-c", _TIED_TO_PARENT, str(death_signal.value), *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], *, patience: float = 20) -> None:
    """Send SIGTERM, kill after ``patience`` seconds, and kill what it left behind at once."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    if process.returncode is None or not _is_taken(process.pid):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_taken(pid: int) -> bool:
    """Whether the number of a process that has ended is another's by now.

    That cannot be as long as anything of its group lives; where tests start many processes, it
    takes minutes until the numbers come around.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that nobody listens on, below the range of outgoing sockets.

    The kernel gives ports of that range to any client at any time; below it, only another server
    that starts at the same moment can take one.
    """
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            listener = held.enter_context(socket.socket())
            port = random.SystemRandom().randrange(10_000, 32_000)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports


def log_tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log, for the message of an error."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
