"""What a decode task needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import ray

from pipeline.contract.schema import DECODED, JPEG, TRAINING_PICTURE, with_kept
from pipeline.contract.spec import CpuDecodeMode, DecodeMode, RunSpec
from pipeline.model.network import Decoded, DevicePreprocessing, JpegHeader, Preprocessing
from pipeline.output.ledger.hashes import HashIndex
from pipeline.sources.formats.item import ReadOptions
from pipeline.stages.allocation import CPU_BLOCK
from pipeline.stages.watching.progress import Reporter
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.uris import canonical, split_uri

MOST_JPEG_BYTES = 8 * 2**20
"""Of a file that travels to an actor; larger ones are decoded where they were fetched."""


def bytes_of(preprocessing: Preprocessing) -> int:
    """Of the pixels of an image, (S, S, 3)."""
    return preprocessing.size**2 * 3


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What a decode task needs to know; travels with it to the worker."""

    preprocessing: Preprocessing
    mode: DecodeMode = "fast"
    environment: WorkerEnvironment
    max_pixels: int
    max_bytes: int
    max_seconds: float = 120.0
    """For one image."""
    read: ReadOptions = field(default_factory=ReadOptions)
    pictures: int | None = None
    """The short side of the files that rows keep of their images, if they do."""
    block_size: int = CPU_BLOCK
    """Rows of a table; every cut of work has its own."""
    stop_at: float | None = None
    """Seconds since the epoch, by the driver's clock, from which on no work is begun any more."""
    known_contents: ray.ObjectRef[HashIndex] | None = None
    """Hashes of the sha256 of images whose numbers are copied, if any are."""
    thumbnail_rate: float = 0.0
    """Share of the images, chosen by their uri, that also yield a thumbnail."""
    reporter: Reporter = field(default_factory=Reporter)
    stores: tuple[str, ...] = ()
    """URIs in stores that the driver has reached, one of each bucket."""

    @classmethod
    def of(
        cls, spec: RunSpec, preprocessing: Preprocessing, kept: pa.Schema, **state: Any
    ) -> DecodeSettings:
        """Settings for a run; ``state`` holds what only a start of it decides."""
        inputs = spec.inputs
        return cls(
            preprocessing=preprocessing,
            mode=spec.model.decode,
            environment=WorkerEnvironment.capture(),
            max_pixels=inputs.max_pixels,
            max_bytes=inputs.max_bytes,
            max_seconds=inputs.max_decode_seconds,
            read=ReadOptions.of(inputs, kept),
            stores=_one_of_each_store((*inputs.uris, spec.output.uri)),
            **state,
        )

    @property
    def image_bytes(self) -> int:
        """Of the pixels of an image, (S, S, 3)."""
        return bytes_of(self.preprocessing)

    @property
    def schema(self) -> pa.Schema:
        """Of the tables that leave the task."""
        decoded = DECODED.append(JPEG) if self.mode == "gpu" else DECODED
        decoded = decoded if self.pictures is None else decoded.append(TRAINING_PICTURE)
        return with_kept(decoded, self.read.kept)

    def header(self, data: bytes) -> JpegHeader | None:
        """What the actor must know to decode a file; None if this task has to.

        Raises:
            DecodeError: nobody can decode it.
        """
        if self.mode != "gpu" or len(data) > MOST_JPEG_BYTES:
            return None
        device = cast(DevicePreprocessing, self.preprocessing)  # checked when the model was read
        return device.header(data, max_pixels=self.max_pixels)

    def decode(self, data: bytes) -> Decoded:
        """The pixels of a file.

        Raises:
            DecodeError: it cannot be decoded.
        """
        mode: CpuDecodeMode = "fast" if self.mode == "gpu" else self.mode
        return self.preprocessing.decode(data, mode=mode, max_pixels=self.max_pixels)


def _one_of_each_store(uris: Iterable[str]) -> tuple[str, ...]:
    """The first in each bucket or container: all in it answer, or none."""
    found: dict[tuple[str, str], str] = {}
    for uri in map(canonical, uris):
        protocol, path = split_uri(uri)
        found.setdefault((protocol, path.partition("/")[0]), uri)
    return tuple(found.values())
