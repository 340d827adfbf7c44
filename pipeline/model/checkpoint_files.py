"""The files of a checkpoint: a directory, one file, either behind a URI, or on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvt.checkpoints.files import read_weights
from cvt.interface.sources import Fetch, open_source
from pipeline.model.network import Floats


@dataclass(frozen=True)
class CheckpointFiles:
    """Files beside each other; each method may fetch them from a remote place."""

    fetch: Fetch
    name: str | None
    """The name of a single file; None for a whole directory."""

    def json(self, name: str) -> Any:
        """The content of a JSON file; None if there is no such file.

        Raises:
            ValueError: it is not valid JSON, or cannot be read.
        """
        path = self.fetch(name)
        return None if path is None else json.loads(path.read_text())

    def weights(self) -> dict[str, Floats]:
        """Tensors by name, whatever their file format.

        Raises:
            ValueError: there are none, or they cannot be read or trusted.
        """
        state = read_weights(self.fetch, self.name)
        if state is None:
            raise ValueError("it holds no weights")
        return {name: np.asarray(tensor.float()) for name, tensor in state.items()}


@contextmanager
def open_checkpoint(source: str) -> Iterator[CheckpointFiles]:
    """Open what ``--model`` or ``--head`` names; fetched files exist as long as the context.

    Raises:
        ValueError: there is no such source.
    """
    with open_source(source) as (fetch, name):
        yield CheckpointFiles(fetch, name)
