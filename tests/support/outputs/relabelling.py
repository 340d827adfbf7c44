"""Outputs to relabel: their seeded scores and embeddings, and the rows that come of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.contract.provenance import Identity
from pipeline.contract.spec import RelabelSpec
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of

CLASSES = ["cat", "lynx", "dog", "wolf", "fox", "car"]
MAP = {"lynx": "cat", "wolf": "dog", "car": "vehicle"}
NEW = ["cat", "dog", "fox", "vehicle"]
Array = npt.NDArray[np.float32]


def softmax(seed: int, rows: int, classes: int = len(CLASSES)) -> Array:
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.softmax(dim=1).numpy()


def vectors(seed: int, rows: int, width: int = 12) -> Array:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).numpy()


def identity(**changes: Any) -> Identity:
    return replace(IDENTITY, **changes)


def spec(source: Store, output: Store, **what: Any) -> RelabelSpec:
    return RelabelSpec(source=source.uri, output=output.uri, **what)


def rows(store: Store, run_id: str = "") -> dict[str, dict[str, Any]]:
    """By uri, as a reader of data/ sees them."""
    names = [n for n in store.list(f"data/run={run_id}" if run_id else "data") if "part-" in n]
    found: list[dict[str, Any]] = []
    for name in names:
        found += read_table(store, name).to_pylist()
    assert len({row["uri"] for row in found}) == len(found)
    return {row["uri"]: row for row in found}


EMBEDDED = identity(embedding="fixed_size_list<element: float>[12]")


def close_embedded(store: Store, seed: int = 0, count: int = 90) -> Array:
    embeddings = vectors(seed, count)
    table = rows_of(softmax(0, count), CLASSES, embeddings=embeddings, failures=["corrupt"] * 2)
    close_run(store, table, CLASSES, identity=EMBEDDED)
    return embeddings
