"""Small inputs for whole runs: images of seeded noise, and a checkpoint of a tiny CvT."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import torch
from PIL import Image

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor

REPOSITORY = Path(__file__).resolve().parents[2]


def write_images(directory: Path, count: int, *, seed: int = 0) -> list[Path]:
    """JPEG files 0000.jpg, 0001.jpg, ... that all differ."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [directory / f"{number:04d}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def write_checkpoint(directory: Path, *, seed: int = 0) -> Path:
    """A seeded CvT of some thousand parameters with 7 classes, for images of 32 x 32."""
    torch.manual_seed(seed)
    config = CvtConfig(
        embed_dim=(16, 24, 32),
        num_heads=(1, 2, 2),
        depth=(1, 1, 2),
        labels=tuple(f"class {number}" for number in range(7)),
    )
    CvtForImageClassification(config).eval().save_pretrained(directory)
    CvtImageProcessor(size=32).save_pretrained(directory)
    return directory


def command(job: str, *arguments: str | Path) -> list[str]:
    """``python -m jobs.JOB ...`` with this interpreter."""
    return [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)]


def run_job(
    job: str, *arguments: str | Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a job from the repository's root, as the README has it."""
    return subprocess.run(
        command(job, *arguments),
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def published_rows(output: Path) -> list[dict[str, object]]:
    """Every row below data/, as a reader without any knowledge of runs sees them."""
    rows: list[dict[str, object]] = ds.dataset(output / "data").to_table().to_pylist()
    return rows
