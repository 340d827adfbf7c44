"""Ray Data's batch inference example: read_images, then a class that holds transformers' pipeline.

After "Image Classification Batch Inference with Hugging Face Vision Transformer" in Ray's
documentation. It is written for GPUs: an actor for each, here one. Without, there are as many
actors as cores, each of one thread, and they leave half of their CPUs to the tasks that read, or
Ray would have no room for these.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
from PIL import Image
from transformers import pipeline

from jobs.bench.contest.peers.entry import Entry
from jobs.bench.contest.peers.local_ray import start_ray


class ImageClassifier:
    """A replica of the model in an actor."""

    def __init__(self, entry: Entry) -> None:
        if not entry.on_gpu:
            torch.set_num_threads(1)
        self.entry = entry
        self.classifier = pipeline(
            "image-classification", model=entry.model, device=entry.device, dtype=entry.torch_dtype
        )
        if entry.on_gpu:
            self.classifier(entry.blank_images(), top_k=1, batch_size=entry.batch_size)
        entry.mark_ready()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = [Image.fromarray(image) for image in batch["image"]]
        outputs = self.classifier(images, top_k=1, batch_size=self.entry.batch_size)
        return {
            "uri": batch["path"],
            "label": [output[0]["label"] for output in outputs],
            "score": [output[0]["score"] for output in outputs],
        }


def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    start_ray(entry)
    images = ray.data.read_images(entry.images, mode="RGB", include_paths=True)
    predictions = images.map_batches(
        ImageClassifier,
        fn_constructor_args=(entry,),
        compute=ray.data.ActorPoolStrategy(size=1 if entry.on_gpu else entry.cores),
        num_cpus=None if entry.on_gpu else 0.5,
        num_gpus=1 if entry.on_gpu else None,
        batch_size=entry.batch_size,
    )
    predictions.write_parquet(entry.output)
    entry.mark_ended()


if __name__ == "__main__":
    main()
