"""transformers' image-classification pipeline over a list of files, in batches.

Its default loads and preprocesses in the main process, in turn with the model; workers beside it do
so at the same time, which is faster and what its documentation offers: one where it shares the
cores with the model, one for each other core where the model is on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import pipeline

from jobs.bench.contest.peers.entry import Entry


def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    torch.set_num_threads(1 if entry.on_gpu else entry.cores)
    classifier = pipeline(
        "image-classification", model=entry.model, device=entry.device, dtype=entry.torch_dtype
    )
    paths = sorted(str(path) for path in Path(entry.images).iterdir())
    workers = 1
    if entry.on_gpu:
        workers = max(entry.cores - 1, 1)
        classifier(entry.blank_images(), top_k=1, batch_size=entry.batch_size)
    entry.mark_ready()
    outputs = classifier(paths, top_k=1, batch_size=entry.batch_size, num_workers=workers)
    table = pa.table(
        {
            "uri": paths,
            "label": [output[0]["label"] for output in outputs],
            "score": [output[0]["score"] for output in outputs],
        }
    )
    pq.write_table(table, f"{entry.output}/part.parquet")
    entry.mark_ended()


if __name__ == "__main__":
    main()
