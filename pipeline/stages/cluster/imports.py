"""Where Ray's workers find our modules."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from itertools import takewhile
from pathlib import Path
from typing import Any

from ray.job_config import JobConfig

from pipeline.contract.errors import UsageError
from pipeline.storage.uris import printable

_worker: Any = import_module("ray._private.worker")  # its types are incomplete


class OurImports(JobConfig):
    """Workers look for modules where this process does, in the same order.

    Ray would have them look in the working directory first, where a folder may be called pipeline.

    Args:
        elsewhere: workers run on other machines, whose Python has its own library and packages.
    """

    def __init__(self, *, elsewhere: bool) -> None:
        super().__init__()
        self._elsewhere = elsewhere

    def _serialize(self) -> str:
        if not self.runtime_env.get("working_dir"):  # which Ray puts on every path
            self._py_driver_sys_path = import_path(elsewhere=self._elsewhere)
        return super()._serialize()


def import_path(*, elsewhere: bool) -> list[str]:
    """Where workers look for modules, as Ray wants it: what comes last is looked through first."""
    path = [os.path.abspath(entry) for entry in sys.path]
    if elsewhere:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        own = {os.path.abspath(sysconfig.get_path(name)) for name in names}
        path = list(takewhile(lambda entry: entry not in own, path))
    # Ray cannot pass on the name of a directory that is not valid Unicode.
    return [entry for entry in path[::-1] if printable(entry) == entry]


def check_imports() -> None:
    """For a Ray that somebody else has connected to.

    Raises:
        UsageError: its workers would take another package for ours.
    """
    job = _worker.global_worker.core_worker.get_job_config()
    ours, theirs = Path(__file__).parents[2], _found(list(job.py_driver_sys_path)[::-1])
    if theirs and theirs != ours:
        raise UsageError(
            f"{theirs} hides the package pipeline of {ours} from Ray's workers; rename it, or call "
            "ray.init in another directory"
        )


def _found(path: Sequence[str]) -> Path | None:
    """The folder or file that is imported as pipeline from one of these directories."""
    spec = PathFinder.find_spec("pipeline", path)
    if spec is None or spec.origin is None:  # a folder without __init__.py hides nothing
        return None
    file = Path(spec.origin).resolve()
    return file.parent if file.name == "__init__.py" else file
