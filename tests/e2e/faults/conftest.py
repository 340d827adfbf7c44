"""A command at work, on disk, on S3, on Azure and on Google."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor
from tests.support.inputs.images import write_images
from tests.support.outputs.found import BucketOutput, LocalOutput
from tests.support.processes.scenes import IMAGES, Scene, scene
from tests.support.servers.clouds import Container
from tests.support.servers.seaweedfs import Bucket


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a run can be met at work: some 10 ms for an image."""
    directory = tmp_path_factory.mktemp("model")
    config = CvtConfig(embed_dim=(64, 96, 128), num_heads=(1, 2, 2), depth=(1, 1, 2))
    CvtForImageClassification(config).eval().save_pretrained(directory)
    CvtImageProcessor(size=96).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("photos")
    write_images(directory, IMAGES - 1)
    (directory / "bad.jpg").write_bytes(b"bad")
    return directory


@pytest.fixture
def on_disk(photos: Path, model: Path, tmp_path: Path) -> Iterator[Scene]:
    it = scene(str(photos), LocalOutput(tmp_path / "out"), model, tmp_path)
    yield it
    it.stop()


@pytest.fixture
def on_s3(photos: Path, model: Path, tmp_path: Path, s3_bucket: Bucket) -> Iterator[Scene]:
    s3_bucket.put_tree(photos, "photos/")
    it = scene(f"{s3_bucket.uri}/photos", BucketOutput(s3_bucket), model, tmp_path)
    yield it
    it.stop()


@pytest.fixture
def on_cloud(photos: Path, model: Path, tmp_path: Path, container: Container) -> Iterator[Scene]:
    container.put_tree(photos, "photos/")
    it = scene(f"{container.uri}/photos", BucketOutput(container), model, tmp_path)
    yield it
    it.stop()
