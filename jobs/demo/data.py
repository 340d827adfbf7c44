"""Fashion-MNIST as Debian's dataset-fashion-mnist installs it: four gzipped IDX files."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEFAULT_ROOT = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_IDX_UINT8 = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Format: two zero bytes, a type code, the number of axes, each axis' length as a big-endian
    uint32, then the values (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        ValueError: the file is not an IDX file of uint8, or its size contradicts its header.
    """
    with gzip.open(path, "rb") as file:
        data = file.read()
    if data[:3] != bytes((0, 0, _IDX_UINT8)):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    values_at = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:values_at], dtype=">u4").tolist())
    return np.frombuffer(data, np.uint8, offset=values_at).reshape(shape)


def load_split(root: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28), white garment on black, and class ids (N,) of ``train`` or ``t10k``.

    Raises:
        FileNotFoundError: the data set is not under ``root``; the message says how to get it.
    """
    images, labels = (root / f"{split}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1"))
    if not images.exists():
        raise FileNotFoundError(
            f"{images} does not exist: install Debian's dataset-fashion-mnist, or pass the "
            "directory that holds the four .gz files of Fashion-MNIST as --data"
        )
    return read_idx(images), read_idx(labels).astype(np.int64)


def of_classes(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Those of the images (N, 28, 28) that are of some classes, and the positions of these."""
    number = np.full(len(CLASS_NAMES), -1)
    number[[CLASS_NAMES.index(name) for name in classes]] = np.arange(len(classes))
    found = number[labels]
    return images[found >= 0], found[found >= 0].astype(np.int64)
