"""Print the worst logit difference from the reference, by model and layout of its checkpoint.

python -m tests.campaigns.parity [cvt-13] [cvt-21] [cvt-w24]
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cvt import CvtConfig, CvtForImageClassification
from tests.support.models.layout_writers import (
    microsoft_state,
    save_as_bin,
    save_as_sharded_bin,
    save_as_sharded_safetensors,
    tensorflow_datasets,
    training_checkpoint,
    write_hdf5,
)
from tests.support.models.oracle import Oracle, difference, images, oracle, use_quick_gelu

SIZES = [(2, 224, 224), (1, 384, 384), (2, 97, 131)]


def write_hugging_face(model: Oracle, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def write_one_safetensors(model: Oracle, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def write_zoo(model: Oracle, folder: Path) -> Path:
    torch.save(microsoft_state(model), folder / "zoo.pth")
    return folder / "zoo.pth"


def write_training_checkpoint(model: Oracle, folder: Path) -> Path:
    torch.save(training_checkpoint(microsoft_state(model)), folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def write_tensorflow(model: Oracle, folder: Path) -> Path:
    datasets = tensorflow_datasets(model, "tf_cvt_for_image_classification")
    write_hdf5(folder / "tf_model.h5", datasets)
    return folder / "tf_model.h5"


def whole_directory(write: Callable[[Oracle, Path], None]) -> Callable[[Oracle, Path], Path]:
    def write_and_name(model: Oracle, folder: Path) -> Path:
        write(model, folder)
        return folder

    return write_and_name


HUGGING_FACE: Mapping[str, Callable[[Oracle, Path], Path]] = {
    "Hugging Face, model.safetensors": write_hugging_face,
    "Hugging Face, pytorch_model.bin": whole_directory(save_as_bin),
    "Hugging Face, sharded safetensors": whole_directory(save_as_sharded_safetensors),
    "Hugging Face, sharded .bin": whole_directory(save_as_sharded_bin),
    "Hugging Face, tf_model.h5": write_tensorflow,
    "one .safetensors file, no config": write_one_safetensors,
}
MICROSOFT: Mapping[str, Callable[[Oracle, Path], Path]] = {
    "Microsoft, zoo .pth": write_zoo,
    "Microsoft, training checkpoint.pth": write_training_checkpoint,
}


def logits(model: Any) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [model(images(*size)).logits for size in SIZES]


def report(name: str, reference: Oracle, writers: Mapping[str, Any], convention: str) -> None:
    """One line per layout: the worst of all sizes."""
    expected = logits(reference)
    for layout, write in writers.items():
        with tempfile.TemporaryDirectory() as folder:
            model = CvtForImageClassification.from_pretrained(write(reference, Path(folder)))
        pairs = zip(logits(model), expected, strict=True)
        worst = max(difference(found, wanted) for found, wanted in pairs)
        print(f"| {name} | {layout} | {convention} | {worst:.1e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["cvt-13"], metavar="PRESET")
    presets = parser.parse_args().presets
    print("| model | source and layout | activation | worst logit difference |\n|---|---|---|---|")
    for preset in presets:
        config = CvtConfig.from_preset(preset)
        reference = oracle(
            depth=config.depth,
            embed_dim=list(config.embed_dim),
            num_heads=list(config.num_heads),
            num_labels=1000,
        )
        report(preset, reference, HUGGING_FACE, "gelu")
        report(preset, use_quick_gelu(reference), MICROSOFT, "quick_gelu")


if __name__ == "__main__":
    main()
