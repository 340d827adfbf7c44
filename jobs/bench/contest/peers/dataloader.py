"""A torch script: DataLoader workers read and preprocess, the main process runs the model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification

from jobs.bench.contest.peers.entry import Entry


class Images(Dataset[tuple[str, torch.Tensor]]):
    """Files of a directory, preprocessed as the checkpoint says."""

    def __init__(self, directory: str, model: str) -> None:
        self.paths = sorted(str(path) for path in Path(directory).iterdir())
        self.processor = AutoImageProcessor.from_pretrained(model)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        return self.paths[index], self.processor(image, return_tensors="pt")["pixel_values"][0]


@torch.inference_mode()
def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    torch.set_num_threads(entry.cores)
    model = AutoModelForImageClassification.from_pretrained(entry.model, dtype=entry.torch_dtype)
    model.eval()
    loader = DataLoader(
        Images(entry.images, entry.model),
        batch_size=entry.batch_size,
        # They share the cores with the model, which takes about ten times as long per image.
        num_workers=max(entry.cores // 4, 1),
    )
    entry.mark_ready()
    uris: list[str] = []
    labels: list[str] = []
    scores: list[float] = []
    for paths, pixels in loader:
        logits = model(pixels.to(entry.torch_dtype)).logits
        best = logits.float().softmax(dim=-1).max(dim=-1)
        uris += paths
        labels += [model.config.id2label[index] for index in best.indices.tolist()]
        scores += best.values.tolist()
    table = pa.table({"uri": uris, "label": labels, "score": scores})
    pq.write_table(table, f"{entry.output}/part.parquet")
    entry.mark_ended()


if __name__ == "__main__":
    main()
