"""CvtImageProcessor against transformers' PIL backend, and the forms of its configuration."""

import io
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from cvt.checkpoints.preprocessor import size_mismatch
from cvt.errors import ConfigError, ImageDecodeError
from cvt.preprocessing.processor import CvtImageProcessor
from tests.support.servers.seaweedfs import Bucket

# What stands in the repositories of microsoft/cvt-* (2022), with a size other than 224 to show.
PUBLISHED = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 384,
}


def random_image(seed: int, width: int, height: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def reference(processor: CvtImageProcessor, image: Image.Image) -> torch.Tensor:
    other = ConvNextImageProcessorPil(**processor.to_dict())
    values: torch.Tensor = other(image, return_tensors="pt")["pixel_values"]
    return values


def sizes(count: int, longest: float) -> Iterator[tuple[int, int]]:
    """Widths and heights whose logarithms are uniform, then shapes at the edges of the rules."""
    random = np.random.default_rng(count)
    for _ in range(count):
        width, height = np.exp(random.uniform(0, np.log(longest), 2)).astype(int)
        if max(width, height) < 60 * min(width, height):  # the reference builds the whole strip
            yield int(width), int(height)
    yield from [(1, 1), (2, 3), (224, 224), (256, 256), (255, 257), (256, 343), (343, 256)]
    yield from [(256, 341), (384, 384), (385, 383), (500, 375), (375, 500), (640, 427), (101, 1201)]


@pytest.mark.parametrize("size", [224, 384])
def test_equals_the_reference_at_any_size(size: int) -> None:
    processor = CvtImageProcessor(size=size)
    for seed, (width, height) in enumerate(sizes(60, 1500)):
        image = random_image(seed, width, height)
        assert torch.equal(processor(image), reference(processor, image)), (width, height)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 223},
        {"size": 225, "crop_pct": 0.9},
        {"size": 383},
        {"size": 512},
        {"size": 64, "crop_pct": 1.0},
        {"size": 32, "crop_pct": 0.5},
        {"size": 96, "image_mean": (0.5, 0.4, 0.3), "image_std": (0.5, 0.2, 0.1)},
        {"size": 96, "rescale_factor": 1 / 127.5},
        {"size": 96, "do_normalize": False},
        {"size": 96, "do_rescale": False},
        {"size": 96, "do_resize": False},
        *({"size": 96, "resample": resample} for resample in range(6)),
    ],
    ids=str,
)
def test_equals_the_reference_with_any_option(options: dict[str, Any]) -> None:
    processor = CvtImageProcessor(**options)
    for width, height in [(127, 90), (90, 127), (300, 200), (13, 12), (500, 31)]:
        image = random_image(0, width, height)
        assert torch.equal(processor(image), reference(processor, image)), (width, height)


def test_without_rescale_and_normalize() -> None:
    """The pixels as they are, though as float32, where the reference leaves them uint8."""
    processor = CvtImageProcessor(size=32, do_rescale=False, do_normalize=False)
    values = processor(random_image(0, 50, 40))
    assert values.dtype == torch.float32
    assert torch.equal(values, reference(processor, random_image(0, 50, 40)).float())


def test_pixels_then_normalize_is_the_call() -> None:
    processor = CvtImageProcessor()
    images = [random_image(seed, 300, 200) for seed in range(3)]
    pixels = np.stack([processor.pixels(image) for image in images])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 224, 224, 3)
    expected = processor(images)
    assert (expected.dtype, expected.shape) == (torch.float32, (3, 3, 224, 224))
    assert expected.is_contiguous()
    pixels.flags.writeable = False  # as arrays from Ray's object store are
    assert torch.equal(processor.normalize(pixels), expected)
    tensor = torch.tensor(pixels)
    assert torch.equal(processor.normalize(tensor), expected)
    assert np.array_equal(tensor, pixels)


def test_kinds_of_input() -> None:
    processor = CvtImageProcessor(size=32)
    image = random_image(0, 50, 40)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    kinds: list[Any] = [image, np.asarray(image), buffer.getvalue(), image.convert("RGBA")]
    batch = processor(kinds)
    assert batch.shape == (4, 3, 32, 32)
    for i, kind in enumerate(kinds):
        assert torch.equal(processor(kind), batch[i : i + 1])
        assert torch.equal(batch[i], batch[0])


def test_orientation_counts_for_pil_images_and_bytes_alike() -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    random_image(0, 50, 40).save(buffer, "PNG", exif=exif)
    processor = CvtImageProcessor(size=32)
    upright = random_image(0, 50, 40).transpose(Image.Transpose.ROTATE_270)
    for kind in (buffer.getvalue(), Image.open(buffer)):
        assert torch.equal(processor(kind), processor(upright))


def test_refused_inputs() -> None:
    processor = CvtImageProcessor()
    wrong: list[Any] = [
        np.zeros((4,), np.uint8),
        np.zeros((5, 4, 6), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ]
    for array in wrong:
        with pytest.raises(ValueError, match=r"uint8 of shape \(H, W, 3\)"):
            processor(array)
    with pytest.raises(TypeError, match="PIL image, bytes or a uint8 array"):
        processor(["photo.jpg"])  # type: ignore[list-item]
    with pytest.raises(ImageDecodeError):
        processor(b"no image")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": {"shortest_edge": 384}},
        {"size": {"height": 384, "width": 384}},
        {"size": [384, 384]},
        {"feature_extractor_type": None, "image_processor_type": "ConvNextImageProcessor"},
        {"feature_extractor_type": None, "image_processor_type": "ConvNextImageProcessorFast"},
        {"feature_extractor_type": None, "image_processor_type": "ConvNextFeatureExtractor"},
        {"do_rescale": True, "rescale_factor": 0.00392156862745098},
        {"do_center_crop": False, "crop_size": None, "do_convert_rgb": None, "data_format": "x"},
        {"do_center_crop": True, "crop_size": {"height": 384, "width": 384}},
        {"crop_pct": None},
    ],
    ids=str,
)
def test_all_forms_of_the_file_mean_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED | changes))
    assert CvtImageProcessor.from_pretrained(tmp_path) == CvtImageProcessor(size=384)


def test_missing_keys_are_the_published_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert CvtImageProcessor.from_config(PUBLISHED) == CvtImageProcessor(size=384)
        assert not caplog.records
        assert CvtImageProcessor.from_config({}) == CvtImageProcessor()
    assert "image_mean, image_std, size" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_extractor_type": "ViTFeatureExtractor"}, "is for ViTFeatureExtractor"),
        ({"size": {"height": 384, "width": 224}}, "one number"),
        ({"size": {"longest_edge": 384}}, "one number"),
        ({"size": "384"}, "one number"),
        ({"size": 0}, "1 or more"),
        ({"crop_pct": 1.5}, "crop_pct"),
        ({"crop_pct": "0.875"}, "crop_pct must be a number from 0.01 to 1, not '0.875'"),
        ({"resample": 6}, "resample"),
        ({"image_std": [1, 0, 1]}, r"image_std must be .* from 1e-06 to 1000, not \[1, 0, 1\]"),
        ({"image_mean": [0.5, 0.5]}, "three values"),
        ({"do_center_crop": True, "crop_size": 224}, "crop_size 224"),
    ],
)
def test_refused_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CvtImageProcessor.from_config(PUBLISHED | changes)


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    processor = CvtImageProcessor(size=96, crop_pct=0.9, resample=2, image_mean=(0.1, 0.2, 0.3))
    processor.save_pretrained(tmp_path / "new")
    assert CvtImageProcessor.from_pretrained(tmp_path / "new") == processor
    theirs: Any = AutoImageProcessor.from_pretrained(tmp_path / "new")
    image = random_image(0, 150, 120)
    expected = theirs(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(image), expected)


def test_reads_what_transformers_saves(tmp_path: Path) -> None:
    ConvNextImageProcessorPil(size={"shortest_edge": 96}, crop_pct=0.8).save_pretrained(tmp_path)
    processor = CvtImageProcessor.from_pretrained(tmp_path)
    image = random_image(0, 150, 120)
    assert torch.equal(processor(image), reference(processor, image))
    assert (processor.size, processor.crop_pct, processor.image_mean) == (96, 0.8, (0.5,) * 3)


def test_sources(tmp_path: Path) -> None:
    """A directory, the file itself, a weights file beside it, and URIs of all three."""
    CvtImageProcessor(size=160).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text("{}")
    names = ["", "preprocessor_config.json", "model.safetensors", "config.json"]
    for name in names:
        for source in (tmp_path / name, str(tmp_path / name), f"file://{tmp_path / name}"):
            assert CvtImageProcessor.from_pretrained(source).size == 160
            assert CvtImageProcessor.from_pretrained(source, size=224).size == 224


def test_source_on_s3(s3_bucket: Bucket) -> None:
    s3_bucket.put("model/preprocessor_config.json", json.dumps(PUBLISHED).encode())
    for name in ("model", "model/", "model/preprocessor_config.json", "model/pytorch_model.bin"):
        processor = CvtImageProcessor.from_pretrained(f"s3://{s3_bucket.name}/{name}")
        assert processor == CvtImageProcessor(size=384)


def test_no_file_means_the_published_values(tmp_path: Path) -> None:
    weights = tmp_path / "CvT-13-384x384-IN-1k.pth"
    weights.touch()
    assert CvtImageProcessor.from_pretrained(weights) == CvtImageProcessor()
    assert CvtImageProcessor.from_pretrained(weights, size=384) == CvtImageProcessor(size=384)


def test_broken_files_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for text in ("{", "[1]", "\x00"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"preprocessor_config\.json") as caught:
            CvtImageProcessor.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        CvtImageProcessor.from_pretrained(f"file://{tmp_path}/other.json")


def test_is_a_value() -> None:
    """Equal and hashable by content, so that it can stand in a fingerprint, and pickled for Ray."""
    processor = CvtImageProcessor(size=96)
    assert pickle.loads(pickle.dumps(processor)) == processor
    assert len({processor, CvtImageProcessor(size=96), CvtImageProcessor()}) == 2


@pytest.mark.parametrize(
    ("size", "config", "name", "expected"),
    [
        (224, {"image_size": 224}, "microsoft/cvt-13", None),
        (224, {"image_size": 384}, "microsoft/cvt-13", "384 (its config.json says"),
        (384, {"image_size": 384}, "microsoft/cvt-13-224", None),
        (224, {}, "microsoft/cvt-13-384-22k", "384 (its name, microsoft/cvt-13-384-22k, says"),
        (384, {}, "microsoft/cvt-13-384-22k", None),
        (224, {}, "/models/CvT-13-384x384-IN-1k.pth", "384 (its name"),
        (224, {}, "/models/384/mine", None),
        (224, {}, "microsoft/cvt-21", None),
        (224, {}, "cvt-13840", None),
        (224, {}, "", None),
    ],
)
def test_size_mismatch(size: int, config: Any, name: str, expected: str | None) -> None:
    message = size_mismatch(size, config, name)
    assert (message is None) == (expected is None)
    assert (expected or "") in (message or "")
