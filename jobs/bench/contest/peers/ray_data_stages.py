"""Ray Data in two stages: tasks read and preprocess, an actor runs transformers' model.

After "Image Classification Batch Inference with PyTorch" in Ray's documentation, which lets all
cores work for one GPU; in ``ray_data`` the actor preprocesses alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from jobs.bench.contest.peers.entry import Entry
from jobs.bench.contest.peers.local_ray import start_ray

Batch = dict[str, Any]


def preprocessing(entry: Entry) -> Callable[[Any], Any]:
    """What turns images (N, H, W, 3) uint8 into pixels (N, 3, S, S)."""
    processor = AutoImageProcessor.from_pretrained(entry.model)
    # NumPy has no bfloat16; of these numbers float16 keeps more.
    dtype = torch.float32 if entry.dtype == "float32" else torch.float16

    def preprocess(batch: Batch) -> Batch:
        pixels = processor(list(batch["image"]), return_tensors="pt")["pixel_values"]
        return {"path": batch["path"], "pixels": pixels.to(dtype).numpy()}

    return preprocess


class Classifier:
    """The model in an actor."""

    def __init__(self, entry: Entry) -> None:
        self.where: dict[str, Any] = {"device": entry.device, "dtype": entry.torch_dtype}
        model = AutoModelForImageClassification.from_pretrained(entry.model)
        self.model = model.eval().to(**self.where)
        if entry.on_gpu:
            processor = AutoImageProcessor.from_pretrained(entry.model)
            self._predict(processor(entry.blank_images(), return_tensors="pt")["pixel_values"])
        entry.mark_ready()

    def __call__(self, batch: Batch) -> Batch:
        scores, indices = self._predict(torch.tensor(batch["pixels"]))
        labels = [self.model.config.id2label[index] for index in indices]
        return {"uri": batch["path"], "label": labels, "score": scores}

    @torch.inference_mode()
    def _predict(self, pixels: torch.Tensor) -> tuple[list[float], list[int]]:
        logits = self.model(pixels.to(**self.where)).logits
        best = logits.float().softmax(dim=-1).max(dim=-1)
        return best.values.tolist(), best.indices.tolist()


def main() -> None:
    """Classify a directory of images."""
    entry = Entry.from_command_line()
    start_ray(entry)
    images = ray.data.read_images(entry.images, mode="RGB", include_paths=True)
    pixels = images.map_batches(preprocessing(entry), batch_size=None)
    predictions = pixels.map_batches(
        Classifier,
        fn_constructor_args=(entry,),
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=None if entry.on_gpu else 0.5,
        num_gpus=1 if entry.on_gpu else None,
        batch_size=entry.batch_size,
    )
    predictions.write_parquet(entry.output)
    entry.mark_ended()


if __name__ == "__main__":
    main()
