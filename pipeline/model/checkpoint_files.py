"""The files of a checkpoint: a directory, one file, either behind a URI, or on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvt.checkpoints.files import read_weights
from cvt.checkpoints.tensors import check_stored
from cvt.checkpoints.unwrap import unwrapped
from cvt.interface.fields import class_names, label_list, read_json
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
        return None if path is None else read_json(path)

    def class_names(self) -> tuple[str, ...]:
        """Those in labels.json, a list, or else in ``id2label`` of config.json; maybe none.

        Raises:
            ValueError: such a file cannot be read, or holds something else.
        """
        if (listed := self.json("labels.json")) is not None:
            return label_list(listed, "labels.json")
        config = self.json("config.json")
        is_named = isinstance(config, dict) and config.get("id2label") is not None
        return class_names(config) if is_named else ()

    def weights(self) -> dict[str, Floats]:
        """Tensors by name, whatever their file format.

        Raises:
            ValueError: there are none, they cannot be read or trusted, or they are quantised.
        """
        read = read_weights(self.fetch, self.name)
        if read is None:
            raise ValueError("it holds no weights")
        source = self.name or "the checkpoint"
        state = unwrapped(read, source)
        check_stored(state, source)
        return {name: np.asarray(tensor.float()) for name, tensor in state.items()}


@contextmanager
def open_checkpoint(source: str) -> Iterator[CheckpointFiles]:
    """Open what ``--model`` or ``--head`` names; fetched files exist as long as the context.

    Raises:
        ValueError: there is no such source.
    """
    with open_source(source) as (fetch, name):
        yield CheckpointFiles(fetch, name)
