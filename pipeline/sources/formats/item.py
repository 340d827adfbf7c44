"""One image on its way to the decoder, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from pipeline.contract.errors import ItemError
from pipeline.contract.spec import IMAGE_EXTENSIONS, LISTED_PROTOCOLS, InputSpec, suffixes
from pipeline.storage.uris import split_uri

ITEM_BYTES = 1000
"""What an image takes in memory besides its bytes, about."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image: its bytes, or why there are none."""

    uri: str
    source_version: str | None
    size_bytes: int | None
    data: bytes | None = None
    error: ItemError | None = None
    shard: str | None = None
    shard_rows: int | None = None
    """On the last item of a shard: how many rows the shard has in all."""
    kept: Mapping[str, Any] | None = None
    """Columns of the input that are carried along, by name."""
    kept_bytes: int = 0
    """What they take in memory, about."""

    def held(self) -> int:
        """What it takes in memory, about."""
        return len(self.data or b"") + self.kept_bytes + ITEM_BYTES


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How the INPUT is to be read; travels with the decode tasks."""

    image_suffixes: tuple[str, ...] = suffixes(IMAGE_EXTENSIONS)
    """Members of a tar with these endings are images."""
    image_column: str | None = None
    """Of Parquet files; None for the first usual name that is present."""
    allow_private_urls: bool = False
    protocols: Set[str] = LISTED_PROTOCOLS
    """Of URIs that are read, in lower case."""
    kept: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Columns of the input that are carried along."""

    @classmethod
    def of(cls, inputs: InputSpec, kept: pa.Schema) -> Self:
        return cls(
            image_suffixes=suffixes(inputs.extensions),
            image_column=inputs.image_column,
            allow_private_urls=inputs.allow_private_urls,
            protocols={
                *LISTED_PROTOCOLS,
                *inputs.allow_protocols,
                *(split_uri(uri)[0] for uri in inputs.uris),
            }
            - {"file"},
            kept=kept,
        )
