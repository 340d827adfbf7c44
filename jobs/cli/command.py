"""What the jobs' command lines share: flags, messages, exit codes."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from pipeline.contract.errors import ExitCode, JobError, one_line
from pipeline.contract.spec import (
    RunSpec,
)
from pipeline.monitoring.report import images_per_second
from pipeline.runs.result import RunResult
from pipeline.runs.run import forecast, run

_STOPPED = "stopped by {}; start the same command again to continue"


def main(job: Callable[[argparse.Namespace], ExitCode], parser: argparse.ArgumentParser) -> int:
    """Run a job; whatever ends it early becomes one line on stderr and an exit code."""
    # The interpreter's last collection would visit all objects of torch and Ray for a second.
    atexit.register(gc.freeze)
    arguments = parser.parse_args()
    _log_to_stderr(logging.DEBUG if arguments.debug else logging.INFO)
    terminated = _interrupt_on_sigterm()
    try:
        return job(arguments)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last resort of a command
        if arguments.debug:
            traceback.print_exception(error)
        code, message = _verdict(error, terminated=terminated.is_set())
        print(f"error: {message}", file=sys.stderr)
        return code


def _log_to_stderr(level: int) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("jobs", "pipeline", "cvt"):
        logging.getLogger(name).setLevel(level)


def _interrupt_on_sigterm() -> threading.Event:
    """From now on SIGTERM acts like Ctrl-C; the event tells that it was SIGTERM."""
    terminated = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    return terminated


def _verdict(error: BaseException, *, terminated: bool) -> tuple[ExitCode, str]:
    """Exit code and message. An interrupt that meets C code comes out as any exception."""
    if terminated:
        return ExitCode.RUN_FAILED, _STOPPED.format("SIGTERM")
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.RUN_FAILED, _STOPPED.format("Ctrl-C")
    if isinstance(error, JobError):
        return error.exit_code, one_line(error, limit=2000)
    message = f"unexpected {type(error).__name__}: {one_line(error)}; --debug shows where"
    return ExitCode.RUN_FAILED, message


def carry_out(spec: RunSpec, arguments: argparse.Namespace) -> ExitCode:
    """Do what the spec says, or, with ``--dry-run``, say what that would be."""
    if not arguments.dry_run:
        return summarize(run(spec, debug=arguments.debug))
    print("\n".join(forecast(spec).lines()))
    return ExitCode.OK


def summarize(result: RunResult) -> ExitCode:
    """Print the closing summary to stdout; the exit code of the job."""
    counts, manifest = result.counts, result.manifest
    computed = counts["ok"] + counts["failed"]
    if not computed and not any(manifest["deferred"].values()):
        print(f"nothing new: {counts['skipped']} images unchanged")
    else:
        print(
            f"{counts['listed']} images listed = {counts['ok']} ok + {counts['failed']} failed "
            f"+ {counts['skipped']} skipped (unchanged)"
        )
        print(f"table:  {result.data_uri}")
    print(f"report: {result.report_uri}")
    if rate := images_per_second(manifest):
        print(f"speed:  {rate:.1f} images/s, start of Ray included")
    if any(manifest["deferred"].values()):
        left = ", ".join(f"{number} {what}" for what, number in manifest["deferred"].items())
        print(f"time was up: {left} are left for the next run")
    for code, number in manifest["failures"].items():
        print(f"failed: {number} {code}")
    for alarm in result.alarms:
        print(f"changed: {alarm}")
    if complaint := result.complaint:
        print(f"error: {complaint}", file=sys.stderr)
    return result.exit_code
