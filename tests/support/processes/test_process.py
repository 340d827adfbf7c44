import subprocess
from pathlib import Path

from tests.support.processes import process, victims

SLEEP = ["sleep", "600"]


def test_what_a_process_left_behind_ends_with_it(tmp_path: Path) -> None:
    parent = process.start(["sh", "-c", "sleep 600 & echo $!"], log=tmp_path / "log")
    parent.wait(60)
    child = Path("/proc", (tmp_path / "log").read_text().strip())
    assert child.exists()
    process.stop(parent)
    victims.wait_until(lambda: not child.exists() or "zombie" in _status(child), "end", 60)


def _status(child: Path) -> str:
    try:
        return (child / "status").read_text()
    except OSError:
        return "zombie"


def test_a_number_that_is_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(60)
    other = process.start(SLEEP, log=tmp_path / "log")
    ended.pid = other.pid
    process.stop(ended)
    assert other.poll() is None
    process.stop(other)
    assert other.poll() is not None
