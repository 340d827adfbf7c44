"""The settings of a run's input."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.spec.settings import About, check_no_password, check_settings, setting

InputFormat = Literal["auto", "images", "webdataset", "parquet", "list", "inventory"]

FIRST_EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")
"""What were images by default before there were more; unfinished runs may have recorded it."""
IMAGE_EXTENSIONS = (
    *FIRST_EXTENSIONS,
    *("heic", "heif", "hif", "jxl"),
    *("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
)
"""Extensions that make a listed object an image."""
SHARD_SUFFIXES: dict[InputFormat, tuple[str, ...]] = {
    "webdataset": (
        ".tar",
        *(".tar.gz", ".tgz"),
        *(".tar.bz2", ".tbz2", ".tbz"),
        *(".tar.xz", ".txz"),
        *(".tar.zst", ".tzst"),
    ),
    "parquet": (".parquet", ".pq"),
}
"""How names of files end, in lower case, that hold many images."""

URI_COLUMNS = ("uri", "url", "image_url", "path", "image_path", "file_name")
"""Usual names of the column of a list that names the images; the first one present is used."""
LISTED_PROTOCOLS = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https"})
"""Of the URIs that a list may name without being asked, beside those of the INPUTs themselves."""
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")
_NEVER_LISTED = frozenset({"file", "local", "generic"})
"""Local files have a setting of their own; "generic" goes around every check of web addresses."""

IMAGE_COLUMNS = ("image", "bytes", "jpg", "img", "content")
"""Usual names of a Parquet file's column that holds the images; the first one present is used."""


PILLOW_PIXEL_LIMIT = 89_478_485
"""Pillow's own limit for a decompression bomb: 1 GiB / 4 / 3 pixels."""

_EXTENSION = re.compile(r"[^\s./,]+(\.[^\s./,]+)*")


def suffixes(extensions: Iterable[str]) -> tuple[str, ...]:
    """Extensions as the endings of lower-case names."""
    return tuple(f".{extension.lower()}" for extension in extensions)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Where the images are."""

    uris: tuple[str, ...] = field(
        metadata=About(
            "directory, prefix, glob or image; WebDataset .tar; .parquet with image bytes or "
            "URIs; .txt, .csv or .jsonl list of URIs; manifest.json of an S3 Inventory report; "
            "each a path or an fsspec URI (s3://...)",
            metavar="INPUT",
            flag="inputs",
        ).metadata
    )
    format: InputFormat = setting(
        "auto",
        "format of a named file, whatever its name; for directories and globs, which files to take",
        flag="--input-format",
    )
    extensions: tuple[str, ...] = setting(
        IMAGE_EXTENSIONS,
        "extensions of images in directories and tars, without a dot",
        metavar="E,E,...",
    )
    exclude: tuple[str, ...] = setting(
        (),
        "leave out what matches, as in a .gitignore: 'thumbs', '*.gif', '2019/**/raw/*'; may be "
        "repeated",
        metavar="GLOB",
        repeatable=True,
    )
    uri_column: str | None = setting(
        None,
        f"column of a list that names the images (default: the first of {', '.join(URI_COLUMNS)})",
        metavar="NAME",
    )
    image_column: str | None = setting(
        None,
        "column of Parquet files that holds the images "
        f"(default: the first of {', '.join(IMAGE_COLUMNS)})",
        metavar="NAME",
    )
    keep: tuple[str, ...] = setting(
        (),
        "columns of lists and Parquet files, and json, cls, txt beside a tar's images, to carry "
        "along; * for all",
        metavar="A,B,...",
    )
    allow_private_urls: bool = setting(
        False, "also fetch listed http(s) images from private and local addresses"
    )
    allow_local_files: bool = setting(
        False, "also read local files that are named by a list which is not local itself"
    )
    allow_protocols: tuple[str, ...] = setting(
        (),
        "also follow listed URIs of these protocols, beside those of the INPUTs, "
        f"{', '.join(sorted(LISTED_PROTOCOLS))}",
        metavar="P,P,...",
    )
    max_pixels: int = setting(
        PILLOW_PIXEL_LIMIT,
        "do not decode images that are larger according to their header",
        metavar="N",
        at_least=1,
    )
    max_decode_seconds: float = setting(
        120.0,
        "give an image up that takes longer to decode",
        metavar="S",
        at_least=1,
    )
    max_bytes: int = setting(512 * 2**20, "do not fetch larger files", metavar="N", at_least=1)

    def __post_init__(self) -> None:
        check_settings(self, "inputs")
        if not self.uris:
            raise UsageError(
                "no <inputs.uris> given: name a directory, prefix, glob, file or shard"
            )
        if not all(self.uris):  # an unset shell variable would mean the working directory
            raise UsageError(
                "one <inputs.uris> is empty: name a directory, prefix, glob, file or shard"
            )
        for uri in self.uris:
            check_no_password("inputs.uris", uri)
        for pattern in self.exclude:
            if not pattern.strip("./"):
                raise UsageError(
                    f"<inputs.exclude> holds {pattern!r}; give e.g. 'thumbs' or '*.gif'"
                )
        for protocol in self.allow_protocols:
            if not _PROTOCOL.fullmatch(protocol) or protocol in _NEVER_LISTED:
                raise UsageError(
                    f"<inputs.allow_protocols> holds {protocol!r}, which it cannot; give e.g. sftp "
                    "(for local files there is <inputs.allow_local_files>)"
                )
        for extension in self.extensions:
            if not _EXTENSION.fullmatch(extension):
                raise UsageError(
                    f"<inputs.extensions> holds {extension!r}, which is not an extension; "
                    "give e.g. jpg,png,heif"
                )
        if not self.extensions:
            raise UsageError("<inputs.extensions> is empty; give e.g. jpg,png,heif")
