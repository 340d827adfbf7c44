"""The demo's model and bucket as they are committed: sizes, agreement, accuracy, broken files."""

import csv
import functools
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageOps

from cvt import CvtForImageClassification, CvtImageProcessor, ImageDecodeError
from cvt.preprocessing.decode import decode_image

DEMO = Path(__file__).parents[3] / "jobs" / "demo"
MODEL, BUCKET = DEMO / "model", DEMO / "bucket"
BROKEN = {
    "broken/bomb.png": "too_many_pixels",
    "broken/empty.jpg": "empty_file",
    "broken/heic-named.png": "unsupported_format",
    "broken/text.jpg": "not_an_image",
    "broken/truncated.jpg": "truncated",
}
UNLABELLED = {"odd/strip-4000x3.png"}


@functools.cache
def labels() -> dict[str, str]:
    """labels.csv: label by uri_suffix."""
    with (BUCKET / "labels.csv").open(newline="", encoding="utf-8") as file:
        return {row["uri_suffix"]: row["label"] for row in csv.DictReader(file)}


@functools.cache
def images() -> dict[str, bytes]:
    """Every file and image member of the bucket by its uri_suffix, labels.csv left out."""
    paths = [path for path in BUCKET.rglob("*") if path.is_file() and path.suffix != ".csv"]
    found = {str(path.relative_to(BUCKET)): path.read_bytes() for path in paths}
    for name in [name for name in found if name.endswith(".tar")]:
        with tarfile.open(fileobj=io.BytesIO(found.pop(name))) as tar:
            for member in tar.getmembers():
                stream = tar.extractfile(member)
                assert stream is not None
                found[f"{name}#{member.name}"] = stream.read()
    return {name: data for name, data in found.items() if not name.endswith(".cls")}


@functools.cache
def model() -> CvtForImageClassification:
    return CvtForImageClassification.from_pretrained(MODEL)


@functools.cache
def pixels(suffixes: tuple[str, ...]) -> torch.Tensor:
    return CvtImageProcessor.from_pretrained(MODEL)([images()[suffix] for suffix in suffixes])


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_sizes_stay_under_their_limits() -> None:
    assert size_of(MODEL) <= 3_000_000
    assert size_of(BUCKET) <= 2_000_000


def test_transformers_loads_the_model_and_agrees() -> None:
    reference = transformers.CvtForImageClassification.from_pretrained(MODEL)  # in eval mode
    batch = pixels(tuple(sorted(labels()))[::20])
    with torch.inference_mode():
        torch.testing.assert_close(
            model()(batch).logits, reference(batch).logits, atol=1e-4, rtol=0
        )
    assert reference.config.id2label == model().config.id2label


def test_transformers_preprocesses_alike() -> None:
    processors: Any = transformers.AutoImageProcessor  # which has no types
    reference = processors.from_pretrained(MODEL, backend="pil")
    suffixes = tuple(s for s in sorted(labels()) if s.startswith("images/"))[::12]
    rgb = [Image.open(io.BytesIO(images()[s])).convert("RGB") for s in suffixes]
    expected = reference(rgb, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(suffixes), expected, atol=1e-5, rtol=0)


def test_recorded_accuracy_reaches_ninety_percent() -> None:
    record = json.loads((MODEL / "training.json").read_text(encoding="utf-8"))
    assert record["test_accuracy"] >= 0.90
    assert record["parameters"] == sum(p.numel() for p in model().parameters())


def test_accuracy_on_the_labelled_images() -> None:
    suffixes = tuple(sorted(labels()))
    with torch.inference_mode():
        predicted = model()(pixels(suffixes)).logits.argmax(dim=1).tolist()
    names = model().config.id2label
    right = [names[p] == labels()[s] for p, s in zip(predicted, suffixes, strict=True)]
    assert np.mean(right) >= 0.88


def test_every_good_image_is_labelled_and_no_other() -> None:
    assert set(labels()) == set(images()) - set(BROKEN) - UNLABELLED
    assert set(labels().values()) == set(model().config.id2label.values())


def test_shard_classes_agree_with_the_labels() -> None:
    with tarfile.open(BUCKET / "shards" / "fashion-000.tar") as tar:
        for member in (m for m in tar.getmembers() if m.name.endswith(".cls")):
            stream = tar.extractfile(member)
            assert stream is not None
            label = model().config.id2label[int(stream.read())]
            assert labels()[f"shards/fashion-000.tar#{member.name[:-4]}.png"] == label


def test_odd_files_are_odd() -> None:
    odd = {n: Image.open(io.BytesIO(d)) for n, d in images().items() if n.startswith("odd/")}
    described = {name.removeprefix("odd/"): (image.mode, image.size) for name, image in odd.items()}
    assert described == {
        "animated.gif": ("P", (56, 56)),
        "cmyk.jpg": ("CMYK", (112, 112)),
        "exif-rotated.jpg": ("L", (112, 112)),
        "grey-16-bit.png": ("I;16", (28, 28)),
        "one-bit.png": ("1", (112, 112)),
        "palette.png": ("P", (56, 56)),
        "rgba-round-corners.png": ("RGBA", (112, 112)),
        "strip-4000x3.png": ("L", (4000, 3)),
    }
    assert getattr(odd["odd/animated.gif"], "n_frames", 1) == 2


def test_exif_orientation_is_needed_and_applied() -> None:
    stored = Image.open(io.BytesIO(images()["odd/exif-rotated.jpg"]))
    decoded = np.asarray(decode_image(images()["odd/exif-rotated.jpg"]))
    assert np.array_equal(decoded[..., 0], np.asarray(ImageOps.exif_transpose(stored)))
    assert not np.array_equal(decoded[..., 0], np.asarray(stored))


@pytest.mark.parametrize(("name", "code"), sorted(BROKEN.items()))
def test_broken_files_fail_for_their_own_reason(name: str, code: str) -> None:
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(images()[name])
    assert caught.value.code == code
