"""From a command line to an exit code: signals, messages, and what ends a command early."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import NoReturn

from pipeline.contract.errors import ExitCode, JobError, one_line
from pipeline.contract.spec import SETTINGS, RunSpec, Setting
from pipeline.contract.urls import public
from pipeline.monitoring.log import OURS, Spell, SpellingFormatter, Stderr

_STOPPED = "stopped by {}; {}start the same command again to continue"


def main(
    job: Callable[[argparse.Namespace], ExitCode],
    parser: argparse.ArgumentParser,
    flagged: Iterable[Setting] = SETTINGS.values(),
    words: Sequence[str] | None = None,
) -> int:
    """Run a job; whatever ends it early becomes one line on stderr and an exit code.

    Args:
        flagged: settings that messages call by their flag; the others go by their place in a file.
        words: those of the command line, if not the ones that this process was started with.
    """
    # The interpreter's last collection would spend a second on the objects of torch and Ray.
    atexit.register(gc.freeze)
    arguments = parser.parse_args(words)
    spoken = {setting.place: setting.spoken for setting in flagged}

    def spell(place: str) -> str:
        return spoken.get(place, place)

    _log_to_stderr(_level(arguments), spell)
    _print_any_name()
    terminated = _interrupt_on_sigterm()
    try:
        return job(arguments)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last resort of a command
        if arguments.debug:
            print(public("".join(traceback.format_exception(error))), file=sys.stderr)
        code, message = _verdict(error, spell, terminated=terminated.is_set())
        print(f"error: {message}", file=sys.stderr)
        return code


def _level(arguments: argparse.Namespace) -> int:
    if arguments.debug:
        return logging.DEBUG
    return logging.WARNING if getattr(arguments, "quiet", False) else logging.INFO


def _log_to_stderr(level: int, spell: Spell) -> None:
    handler = Stderr(sys.stderr)
    handler.setFormatter(SpellingFormatter(spell))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("jobs", *OURS):
        logging.getLogger(name).setLevel(level)


def _print_any_name() -> None:
    """Escape what a terminal cannot show, or what is no text, instead of failing at the end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt_on_sigterm() -> threading.Event:
    """Make SIGTERM act like Ctrl-C from now on; the event says that it was SIGTERM."""
    terminated = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    return terminated


def _verdict(error: BaseException, spell: Spell, *, terminated: bool) -> tuple[ExitCode, str]:
    """Exit code and message. An interrupt during C code may surface as any exception."""
    if terminated or isinstance(error, KeyboardInterrupt):
        by = "SIGTERM" if terminated else "Ctrl-C"
        saved = "".join(f"{note}; " for note in getattr(error, "__notes__", []))
        return ExitCode.RUN_FAILED, _STOPPED.format(by, saved)
    if isinstance(error, JobError):
        return error.exit_code, one_line(error.spelled(spell), limit=2000)
    message = f"unexpected {type(error).__name__}: {one_line(error)}; --debug shows where"
    return ExitCode.RUN_FAILED, message


def carry_out(spec: RunSpec, arguments: argparse.Namespace) -> ExitCode:
    """Do what the spec says, or, with ``--dry-run``, say what that would be."""
    if sys.stderr.isatty() and not arguments.quiet:
        print("starting: PyTorch and Ray take some seconds ...", file=sys.stderr)
    # These import torch and Ray, which a run needs, but neither a wrong flag nor --help.
    from jobs.cli.summary import show_plan, summarize
    from pipeline.runs.run import forecast, run

    if not arguments.dry_run:
        result = run(spec, debug=arguments.debug)
        return summarize(result, as_json=arguments.json, quiet=arguments.quiet)
    show_plan(forecast(spec), as_json=arguments.json)
    return ExitCode.OK
