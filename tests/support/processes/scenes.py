"""A command that is started, killed and started again, and what its output holds meanwhile."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.commands import command
from tests.support.outputs.found import Output, check_closed, parts
from tests.support.processes import process, victims

IMAGES = 600
BLOCK = 32


@dataclass
class Attempt:
    """One start of the command, with all that it printed in one log."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, patience: float = 480) -> tuple[int, str]:
        """Exit code and output."""
        code = self.process.wait(patience)
        return code, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL the driver, and nothing else."""
        self.process.kill()
        self.process.wait()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


@dataclass
class Scene:
    """One command that is started again and again."""

    arguments: list[str]
    output: Output
    directory: Path
    env: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def start(self) -> Attempt:
        log = self.directory / f"attempt-{len(self.attempts)}.log"
        started = process.start(self.arguments, log=log, env=os.environ | self.env)
        self.attempts.append(Attempt(started, log))
        return self.attempts[-1]

    def stop(self) -> None:
        for attempt in self.attempts:
            process.stop(attempt.process)

    def until_parts(self, attempt: Attempt, number: int) -> None:
        """Wait until the open run has so many parts."""
        victims.wait_until(
            lambda: len(parts(self.output)) >= number or attempt.has_ended, f"{number} parts"
        )
        assert not attempt.has_ended, attempt.log.read_text()

    def finish(self) -> dict[str, Any]:
        """Start the command once more; the manifest, after all checks of the output."""
        code, log = self.start().wait()
        assert code == 0, log
        assert "Traceback" not in log
        return check_closed(self.output, IMAGES)


def scene(source: str, output: Output, model: Path, directory: Path) -> Scene:
    arguments = command("classify", source, "--output", output.uri, "--model", model)
    return Scene([*arguments, f"--block-size={BLOCK}"], output, directory)


def computed_twice(manifest: dict[str, Any]) -> int:
    """Images that the last attempt computed although their rows stood, or more than once."""
    timings, plan = manifest["timings"], manifest["plan"]
    return int(timings.get("stage_inferred", 0)) - (IMAGES - int(plan["finished"]))
