"""Links in a model's directory: followed within it, and into the hub's cache, nowhere else."""

import shutil
from pathlib import Path

import pytest
import torch

from cvt import CheckpointError, CvtForImageClassification, CvtImageProcessor
from tests.support.models.oracle import Oracle, difference, images

load = CvtForImageClassification.from_pretrained
X = images(1, 32, 32)


def linked(target: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_links_out_of_the_directory_are_not_followed(
    name: str, scheme: str, small_dir: Path, tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    shutil.copytree(small_dir, home)
    elsewhere.mkdir()
    CvtImageProcessor(size=48).save_pretrained(home)
    shutil.move(home / name, elsewhere / name)
    linked(elsewhere / name, home / name)
    is_processor = name.startswith("preprocessor")
    read = CvtImageProcessor.from_pretrained if is_processor else load
    with pytest.raises(CheckpointError, match=f"{name} leads out of the model's directory"):
        read(f"{scheme}{home}")


def test_links_within_it_and_to_it_are(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    """And the file that was named itself is read wherever it lies."""
    home = tmp_path / "models" / "small"
    shutil.copytree(small_dir, home)
    (home / "blobs").mkdir()
    shutil.move(home / "model.safetensors", home / "blobs" / "0123")
    linked(Path("blobs/0123"), home / "model.safetensors")
    linked(home, tmp_path / "latest")
    linked(home / "model.safetensors", tmp_path / "weights.safetensors")
    config = str(small_dir / "config.json")
    for model in (load(tmp_path / "latest"), load(tmp_path / "weights.safetensors", config=config)):
        with torch.inference_mode():
            assert difference(model(X).logits, small(X).logits) < 1e-5


def test_the_hubs_cache_links_to_its_blobs(small_dir: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--small"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(small_dir.iterdir())):
        shutil.copy(file, blobs / str(number))
        linked(Path("../../blobs") / str(number), snapshot / file.name)
    assert load(snapshot).config.num_labels == 7
    shutil.copy(small_dir / "config.json", tmp_path)
    linked(Path("../../../config.json"), snapshot / "config.json")
    with pytest.raises(CheckpointError, match="leads out of the model's directory"):
        load(snapshot)
