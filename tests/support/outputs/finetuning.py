"""What is learned from: outputs with embeddings of overlapping clusters and the identity of a real
model, and lessons in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import TRAINING_PICTURE
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.arithmetic import Arithmetic
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.recipes import Recipe
from pipeline.stages.train.lesson import Lesson
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.images import COLOURS, write_kinds
from tests.support.outputs.closed_runs import close_run, rows_of

OLD_CLASSES = [f"class {number}" for number in range(7)]
KINDS = ("ant", "bee", "cow")
RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=1e-3)


@dataclass(frozen=True)
class Labelled:
    """What was written: images in directories named after what they show."""

    uris: list[str]
    kinds: list[str]
    """The truth, and the name of each image's directory."""
    vectors: npt.NDArray[np.float32]

    def label_file(self, path: Path, changes: Mapping[str, str] | None = None) -> Path:
        """A CSV of every image and its kind, or what ``changes`` says."""
        told = dict(zip(self.uris, self.kinds, strict=True)) | dict(changes or {})
        path.write_text("uri,label\n" + "".join(f"{uri},{kind}\n" for uri, kind in told.items()))
        return path


def run_identity(checkpoint: Path, **output: Any) -> Identity:
    """What a float32 run with a checkpoint writes into its manifest."""
    spec = RunSpec(
        inputs=InputSpec(uris=("in",)),
        model=ModelSpec(source=str(checkpoint), dtype="float32"),
        output=OutputSpec(uri="out", **{"top_k": 5, "embeddings": True} | output),
    )
    return LoadedModel.of(load_checkpoint(spec.model), spec, Arithmetic("float32")).identity


def clusters(
    kinds: Sequence[str], width: int, *, spread: float = 1.0, seed: int = 0
) -> npt.NDArray[np.float32]:
    """(R, width): equal kinds lie around the same centre."""
    rng = np.random.default_rng(seed)
    centres = {kind: rng.normal(size=width) for kind in sorted(set(kinds))}
    noise = spread * rng.normal(size=(len(kinds), width))
    return (np.array([centres[kind] for kind in kinds]) + noise).astype(np.float32)


def close_labelled(
    store: Store,
    checkpoint: Path,
    *,
    each: int = 30,
    kinds: Sequence[str] = KINDS,
    prefix: str = "s3://bucket/in",
    spread: float = 1.0,
    kept: Mapping[str, Sequence[Any]] | None = None,
    contents: Mapping[int, str] | None = None,
    failures: Sequence[str] = (),
    vectors: npt.NDArray[np.float32] | None = None,
    seed: int = 0,
    first: int = 0,
    **identity: Any,
) -> Labelled:
    """Publish ``each`` images of every kind.

    Args:
        kept: columns carried along, a value for each image.
        first: the number of the first image.
        contents: the SHA-256 of some images, by number, if not one of their own.
        identity: what differs from the identity of a run with the checkpoint.
    """
    names = [kind for kind in kinds for _ in range(each)]
    uris = [f"{prefix}/{kind}/{number:04d}.jpg" for number, kind in enumerate(names, first)]
    told = run_identity(checkpoint)
    width = int(str(told.embedding).rpartition("[")[2].rstrip("]"))
    found = clusters(names, width, spread=spread, seed=seed) if vectors is None else vectors
    scores = np.tile(np.linspace(0.3, 0.0, 7, dtype=np.float32), (len(names), 1))
    rows = rows_of(scores, OLD_CLASSES, embeddings=found, failures=failures)
    digests = [(contents or {}).get(n, f"{prefix}{n:060x}") for n in range(len(names))]
    rows = _with(rows, "uri", [*uris, *rows["uri"].to_pylist()[len(uris) :]])
    rows = _with(rows, "sha256", [*digests, *[None] * len(failures)])
    for name, values in (kept or {}).items():
        rows = rows.append_column(name, pa.array([*values, *[None] * len(failures)]))
    types = {name: str(rows.schema.field(name).type) for name in kept or {}} or None
    close_run(store, rows, OLD_CLASSES, identity=replace(told, kept=types, **identity))
    return Labelled(uris, names, found)


def _with(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))


def beginner(checkpoint: Path) -> TrainableCheckpoint:
    """The checkpoint with a head of noise, for the kinds of pictures."""
    found = load_checkpoint(ModelSpec(source=str(checkpoint)))
    assert isinstance(found, TrainableCheckpoint)
    weight = np.random.default_rng(0).normal(0, 0.1, (3, found.head[0].shape[1]))
    return found.with_head(weight.astype(np.float32), np.zeros(3, np.float32), sorted(COLOURS))


def lesson_of(
    folder: Path, models: Store, each: int = 10, recipe: Recipe = RECIPE, **settings: Any
) -> Lesson:
    """Every fifth picture is held out; they are in one file below ``models``."""
    paths = write_kinds(folder, each)
    table = pa.table(
        {
            "uri": [str(path) for path in reversed(paths)],
            TRAINING_PICTURE.name: pa.array(
                [path.read_bytes() for path in reversed(paths)], TRAINING_PICTURE.type
            ),
        }
    )
    write_table(models, f"{layout.packed_images('lesson')}/pictures.parquet", table)
    kinds = sorted(COLOURS)
    return Lesson(
        **{
            "recipe": recipe,
            "last_stage": False,
            "patience": 99,
            "targets": np.array([kinds.index(path.parent.name) for path in paths], np.int64),
            "held_out": np.arange(len(paths)) % 5 == 0,
            "uris": [str(path) for path in paths],
            "files": ["pictures.parquet"],
            "models": models,
            "run_id": "lesson",
            "environment": WorkerEnvironment.capture(),
        }
        | settings
    )
