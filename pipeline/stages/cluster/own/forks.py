"""How ``raylet`` is told to have its workers forked."""

from __future__ import annotations

import secrets
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from pipeline.stages.cluster.imports import import_path

_services: Any = import_module("ray._private.services")  # its types are incomplete
_HERE = Path(__file__).parent
_WORKER = Path(_services.RAY_PATH, _services.RAY_PRIVATE_DIR, "workers", "default_worker.py")


@dataclass(frozen=True)
class Nursery:
    """A process of which workers are forks, see ``nursery.py``."""

    address: str

    @classmethod
    def new(cls) -> Self:
        """One that nobody else knows."""
        return cls(f"cvt-batch-{secrets.token_hex(16)}")

    @property
    def command(self) -> str:
        """What starts it; it imports from where this process does."""
        path = import_path(elsewhere=False)[::-1]
        script = str(_HERE / "nursery.py")
        return subprocess.list2cmdline([sys.executable, "-P", script, self.address, *path])

    def launching(self, worker: str) -> str:
        """The command of a worker, made that of its launcher."""
        script = subprocess.list2cmdline([str(_WORKER)])
        launcher = ["-I", "-S", str(_HERE / "launcher.py"), self.address, str(_WORKER)]
        return worker.replace(script, subprocess.list2cmdline(launcher), 1)
