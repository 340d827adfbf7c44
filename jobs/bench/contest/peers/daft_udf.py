"""Daft: download and decode as expressions, transformers' CvT as a class UDF over batches.

After the image classification benchmark of Daft's repository, with as many instances as cores, each
of one thread, or with one that has the GPU. Daft runs them side by side in threads or processes, as
it sees fit.
"""

from __future__ import annotations

from typing import Any

import daft
import torch
from daft import DataType
from transformers import AutoImageProcessor, AutoModelForImageClassification

from jobs.bench.contest.peers.entry import Entry

_PREDICTION = DataType.struct({"label": DataType.string(), "score": DataType.float64()})


class Classifier:
    """An instance of the model."""

    def __init__(self, entry: Entry) -> None:
        if not entry.on_gpu:
            torch.set_num_threads(1)
        self.dtype = entry.torch_dtype
        self.processor = AutoImageProcessor.from_pretrained(entry.model)
        model = AutoModelForImageClassification.from_pretrained(entry.model, dtype=self.dtype)
        self.model = model.eval().to(entry.device)
        if entry.on_gpu:
            self._predict(entry.blank_images())
        entry.mark_ready()

    @torch.inference_mode()
    def classify(self, images: daft.Series) -> list[dict[str, Any]]:
        return self._predict(images.to_pylist())

    def _predict(self, images: list[Any]) -> list[dict[str, Any]]:
        pixels = self.processor(images, return_tensors="pt")["pixel_values"]
        logits = self.model(pixels.to(self.model.device, self.dtype)).logits
        best = logits.float().softmax(dim=-1).max(dim=-1)
        names = [self.model.config.id2label[index] for index in best.indices.tolist()]
        pairs = zip(names, best.values.tolist(), strict=True)
        return [{"label": label, "score": score} for label, score in pairs]


def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    batched = daft.method.batch(return_dtype=_PREDICTION, batch_size=entry.batch_size)
    Classifier.classify = batched(Classifier.classify)  # type: ignore[method-assign]
    place = {"gpus": 1, "max_concurrency": 1} if entry.on_gpu else {"max_concurrency": entry.cores}
    workers = daft.cls(**place)
    classifier = workers(Classifier)(entry)
    files = daft.from_glob_path(f"{entry.images}/*")
    images = files.with_column("image", daft.col("path").download().decode_image(mode="RGB"))
    predictions = images.with_column("prediction", classifier.classify(daft.col("image")))
    predictions.select(
        daft.col("path").alias("uri"),
        daft.col("prediction")["label"].alias("label"),
        daft.col("prediction")["score"].alias("score"),
    ).write_parquet(entry.output)
    entry.mark_ended()


if __name__ == "__main__":
    main()
