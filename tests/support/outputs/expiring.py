"""A run whose credentials expire on the way, and the same command with new ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from tests.support.outputs.found import published_rows
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults


def check_expiry(
    call_job: Callable[..., CompletedProcess[str]],
    arguments: Sequence[str | Path],
    output: Path,
    proxy: FaultProxy,
    faults: Faults,
    said: str,
) -> None:
    """The run over 30 images stops and says so; the next call finishes it, and no image has paid.

    ``faults`` is how the store refuses, ``said`` what the last line quotes of that.
    """
    proxy.faults = faults
    stopped = call_job("embed", *arguments)
    assert stopped.returncode == 1, stopped.stderr
    last = stopped.stderr.splitlines()[-1]
    assert said in last
    assert "start the same command again to continue" in last
    assert "Traceback" not in stopped.stderr
    proxy.faults = Faults()
    finished = call_job("embed", *arguments)
    assert finished.returncode == 0, finished.stderr
    assert "30 images listed = 30 ok + 0 failed" in finished.stdout
    assert {row["error_code"] for row in published_rows(output)} == {None}
