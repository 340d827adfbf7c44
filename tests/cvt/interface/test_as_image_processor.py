"""Calls of the processor as transformers' users write them, against transformers' PIL backend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from cvt import ConfigError, CvtConfig, CvtForImageClassification, CvtImageProcessor
from tests.support.models.oracle import SMALL

IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    for seed in range(2)
]
OURS = CvtImageProcessor(size=32)
THEIRS = ConvNextImageProcessorPil(**OURS.to_dict())


def test_the_first_line_of_every_notebook() -> None:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL)).eval()
    inputs = OURS(images=IMAGES, return_tensors="pt")
    assert torch.equal(model(**inputs).logits, model(OURS(IMAGES)).logits)
    assert torch.equal(model(**inputs.to("cpu")).logits, model(inputs.pixel_values).logits)
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)
    assert inputs.to(torch.float64).pixel_values.dtype == torch.float64


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"shortest_edge": 48}},
        {"crop_pct": 0.5},
        {"resample": 2},
        {"do_resize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
        {"input_data_format": "channels_last"},
        {"do_convert_rgb": True},
    ],
    ids=str,
)
def test_settings_of_one_call_are_those_of_transformers(options: dict[str, Any]) -> None:
    arrays: Any = [np.asarray(image) for image in IMAGES]
    found = OURS(arrays, return_tensors="pt", **options)["pixel_values"]
    expected = THEIRS(arrays, return_tensors="pt", **options)["pixel_values"]
    assert torch.equal(found, expected.float())
    assert CvtImageProcessor(size=32) == OURS


def test_kinds_of_result() -> None:
    tensor, array = OURS(IMAGES), OURS(IMAGES, return_tensors="np")["pixel_values"]
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, tensor.numpy())
    assert torch.equal(OURS.preprocess(IMAGES), tensor)
    assert torch.equal(OURS(IMAGES, data_format="channels_last"), tensor.permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match='return_tensors must be "pt" or "np", not \'tf\''):
        OURS(IMAGES, return_tensors="tf")
    with pytest.raises(ValueError, match="channels_first, channels_last"):
        OURS(IMAGES, data_format="last")


def test_wrong_settings_of_a_call_are_refused() -> None:
    with pytest.raises(TypeError, match="sizes"):
        OURS(IMAGES, sizes=3)
    with pytest.raises(ConfigError, match="size"):
        OURS(IMAGES, size=0)


@pytest.mark.parametrize(
    "size", [32, {"shortest_edge": 32}, {"height": 32, "width": 32}, [32, 32], (32, 32)], ids=str
)
def test_spellings_of_the_size(size: Any) -> None:
    assert CvtImageProcessor(size=size) == OURS
    assert CvtImageProcessor(size=size).size == 32


def test_lists_and_single_numbers_as_mean_and_deviation() -> None:
    listed = CvtImageProcessor(image_mean=[0.5] * 3, image_std=0.5)  # type: ignore[arg-type]
    assert listed == CvtImageProcessor(image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    assert hash(listed)


def test_as_text_and_from_it(tmp_path: Path) -> None:
    OURS.to_json_file(tmp_path / "a.json")
    assert CvtImageProcessor.from_json_file(tmp_path / "a.json") == OURS
    assert (tmp_path / "a.json").read_text() == OURS.to_json_string()
    assert CvtImageProcessor.from_dict(OURS.to_dict(), size=64) == CvtImageProcessor(size=64)
    assert OURS.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    assert (OURS.model_input_names, OURS.do_convert_rgb) == (["pixel_values"], True)
