"""Models without a checkpoint: seeded weights in the shape of a published model."""

from __future__ import annotations

from pathlib import Path

import torch

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor

SMALL = CvtConfig(
    embed_dim=(16, 32, 64),
    num_heads=(1, 2, 4),
    depth=(1, 2, 3),  # transformers builds no stage that is shallower
    labels=tuple(f"LABEL_{n}" for n in range(10)),
)
"""So fast that only the costs of everything else show: some 60,000 parameters."""
SMALL_SIZE = 32


def write_model(directory: Path, preset: str) -> Path:
    """A Hugging Face directory of random weights, the same on every machine with this torch."""
    processor = CvtImageProcessor(size=SMALL_SIZE) if preset == "small" else CvtImageProcessor()
    model = _fresh(preset)
    _spread_labels(model, processor.size)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def write_uneven_model(directory: Path, preset: str, size: int) -> Path:
    """The same for images of another size, with weights every part of which has an effect: freshly
    made, BatchNorm and LayerNorm are the identity, and a network that left them out would agree."""
    model = _fresh(preset)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bias", "running_mean")):
            tensor.data.normal_(0, 0.1)
        elif "norm" in name or name.endswith(("bn.weight", "running_var")):
            tensor.data.uniform_(0.5, 1.5)
    model.save_pretrained(directory)
    CvtImageProcessor(size=size).save_pretrained(directory)
    return directory


def _fresh(preset: str) -> CvtForImageClassification:
    torch.manual_seed(0)
    config = SMALL if preset == "small" else CvtConfig.from_preset(preset)
    return CvtForImageClassification(config).eval()


def copy_model(source: str, directory: Path) -> Path:
    """Any checkpoint as a Hugging Face directory, from which everyone loads the same weights."""
    CvtForImageClassification.from_pretrained(source).save_pretrained(directory)
    CvtImageProcessor.from_pretrained(source).save_pretrained(directory)
    return directory


@torch.inference_mode()
def _spread_labels(model: CvtForImageClassification, size: int) -> None:
    """Centre the logits: otherwise random weights would give every image the same label, and
    agreement with a peer would mean nothing."""
    noise = torch.nn.functional.interpolate(torch.randn(8, 3, 16, 16), (size, size), mode="bicubic")
    head = model.head
    head.bias -= model(noise).logits.mean(dim=0)
