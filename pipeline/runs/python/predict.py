"""The model for datasets that a program has put together itself."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray._private.worker import WORKER_MODE, global_worker

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import PIXELS
from pipeline.contract.spec import DEFAULT_TOP_K, SETTINGS, RunSpec
from pipeline.model.arithmetic import choose, this_cpu, this_gpu
from pipeline.model.loaded import LoadedModel, read_checkpoint
from pipeline.runs.python.batches import Batch, as_table, check_free, typed
from pipeline.runs.python.decode import DECODED, NOWHERE
from pipeline.runs.python.keywords import Keywords, Place, run_spec
from pipeline.runs.python.shown import as_in_python
from pipeline.stages.allocation import CPU_BATCH, GPU_BATCH
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings

_PLACES = (
    "model.source", "model.activation", "model.image_size", "model.dtype", "model.runtime",
    "output.top_k", "output.scores", "output.thresholds", "output.embeddings", "output.pooling",
    "output.normalize", "output.embedding_dtype", "compute.batch_size", "compute.compile",
)  # fmt: skip
KEYWORDS = Keywords(SETTINGS[place] for place in _PLACES)

log = logging.getLogger(__name__)


class Predict:
    """Pixels to labels and embeddings, for actors of Ray Data::

        rows.map_batches(Predict, fn_constructor_kwargs={"model": MODEL}, concurrency=2, num_gpus=1)

    It takes what ``Decode`` with the same model makes, and returns the rows without ``_pixels``,
    with ``label_id``, ``label``, ``score``, ``topk_ids``, ``topk_labels``, ``topk_scores``,
    ``labels`` and ``embedding`` as in the output of a run, as far as they are asked for. Rows of
    images that failed stay as they are; NaN or infinity make failed rows.

    It computes on the GPUs that Ray gives to the actor (``num_gpus``), otherwise on as many threads
    as it has CPUs (``num_cpus``), and checks its own numbers before the first image.

    Args:
        model: a checkpoint: directory, file, URI or hub name; every actor reads it.
        settings: settings of a run that have to do with the model and its columns, by keyword;
            ``top_k`` is 5 unless it is given, also as None, for no labels.

    Raises:
        UsageError: a setting is wrong or the checkpoint cannot be read, or has not what is asked
            for; later, if a batch is not one that ``Decode`` made.
    """

    def __init__(self, model: Place, **settings: Any) -> None:
        with as_in_python(KEYWORDS.spell, progress=False):
            found = KEYWORDS.values(settings | {"model": model})
            spec = run_spec(NOWHERE | {"output.top_k": DEFAULT_TOP_K} | found)
            gpus = _share("GPU")
            loaded = _loaded(spec, gpus)
            automatic = GPU_BATCH if gpus else CPU_BATCH
            size = spec.compute.batch_size
            self._settings = InferSettings.of(
                loaded,
                gpus=gpus,
                threads=max(int(_share("CPU")), 1) if _is_worker() else torch.get_num_threads(),
                batch_size=automatic if size == "auto" else size,
                find_batch_size=size == "auto",
                compile=bool(spec.compute.compile),
            )
            self._predictor = Predictor(loaded.pack(), self._settings)

    def __call__(self, batch: Batch) -> pa.Table:
        """The rows with results."""
        table = typed(as_table(batch), DECODED)
        self._check(table)
        size = self._settings.batch_size
        starts = range(0, max(len(table), 1), size)
        return pa.concat_tables([self._predictor(table.slice(start, size)) for start in starts])

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Predict does not travel; give its class, as in ds.map_batches(Predict, "
            'fn_constructor_kwargs={"model": ...}, concurrency=1)'
        )

    def _check(self, table: pa.Table) -> None:
        if lacking := [name for name in DECODED.names if name not in table.column_names]:
            raise UsageError(
                f"the batch has no column {lacking[0]}; Predict takes what Decode makes"
            )
        check_free(table.column_names, (column.name for column in self._settings.columns))
        size = self._predictor.size
        lengths = pc.unique(pc.binary_length(table[PIXELS.name].drop_null())).to_pylist()
        if lengths not in ([], [size * size * 3]):
            raise UsageError(
                f"the pixels are not of {size} x {size}, as this model takes them; give Decode and "
                "Predict the same model and image_size"
            )


def _loaded(spec: RunSpec, gpus: float) -> LoadedModel:
    """The model in the arithmetic that suits where this actor computes."""
    checkpoint = read_checkpoint(spec)
    place = (this_gpu() if gpus else None) or this_cpu()
    arithmetic = choose(spec.model, None, lambda: [place])
    if arithmetic.warning:
        log.warning("%s", arithmetic.warning)
    return LoadedModel.of(checkpoint, spec, arithmetic)


def _is_worker() -> bool:
    worker: Any = global_worker
    return bool(worker.mode == WORKER_MODE)


def _share(resource: str) -> float:
    """What Ray has given to this process."""
    if not _is_worker():
        return 0.0
    return float(ray.get_runtime_context().get_assigned_resources().get(resource, 0.0))
