"""A torch script: DataLoader workers read and preprocess, the main process runs the model.

On a GPU it does what PyTorch's performance guide says: a worker for each other core, pinned memory
and copies that nobody waits for, half precision from the workers on, a model that is compiled for
one size of batches, and results that are fetched at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification

from jobs.bench.contest.peers.entry import Entry

Item = tuple[str, Tensor]
Logits = Callable[[Tensor], Tensor]


class Images(Dataset[Item]):
    """Files of a directory, preprocessed as the checkpoint says."""

    def __init__(self, directory: str, model: str, dtype: torch.dtype) -> None:
        self.paths = sorted(str(path) for path in Path(directory).iterdir())
        self.processor = AutoImageProcessor.from_pretrained(model)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        image = Image.open(self.paths[index]).convert("RGB")
        pixels = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return self.paths[index], pixels.to(self.dtype)


def make_loader(entry: Entry) -> DataLoader[Item]:
    """Batches of paths and float pixels (B, 3, S, S)."""
    images = Images(entry.images, entry.model, entry.torch_dtype if entry.on_gpu else torch.float32)
    return DataLoader(
        images,
        batch_size=entry.batch_size,
        # On CPUs they share the cores with the model, which takes some ten times as long per image.
        num_workers=max(entry.cores - 1 if entry.on_gpu else entry.cores // 4, 1),
        pin_memory=entry.on_gpu,
    )


def compiled(model: Any, example: Tensor, batch_size: int) -> Logits:
    """The model's logits for batches of up to a size, compiled for that size alone.

    Args:
        example: pixels of one image (3, S, S), where the model is.
    """
    network: Any = torch.compile(model, dynamic=False)

    def logits(pixels: Tensor) -> Tensor:
        missing = batch_size - len(pixels)
        padded = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else pixels
        given: Tensor = network(padded).logits
        return given[: len(pixels)]

    logits(example.expand(batch_size, -1, -1, -1).contiguous())
    return logits


def prepare(model: Any, images: Dataset[Item], entry: Entry) -> Logits:
    """The model as it is fastest on the device."""
    if entry.on_gpu:
        _, example = images[0]
        return compiled(model, example.to(entry.device), entry.batch_size)
    return lambda pixels: model(pixels).logits


@torch.inference_mode()
def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    torch.set_num_threads(1 if entry.on_gpu else entry.cores)
    model = AutoModelForImageClassification.from_pretrained(entry.model, dtype=entry.torch_dtype)
    model.eval().to(entry.device)
    loader = make_loader(entry)
    where = {"device": entry.device, "dtype": entry.torch_dtype}
    classify = prepare(model, loader.dataset, entry)
    entry.mark_ready()
    uris: list[str] = []
    indices: list[Tensor] = []
    scores: list[Tensor] = []
    for paths, pixels in loader:
        logits = classify(pixels.to(**where, non_blocking=True))
        best = logits.float().softmax(dim=-1).max(dim=-1)
        uris += paths
        indices.append(best.indices)
        scores.append(best.values)
    labels = [model.config.id2label[index] for index in torch.cat(indices).tolist()]
    table = pa.table({"uri": uris, "label": labels, "score": torch.cat(scores).tolist()})
    pq.write_table(table, f"{entry.output}/part.parquet")
    entry.mark_ended()


if __name__ == "__main__":
    main()
