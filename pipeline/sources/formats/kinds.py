"""What a file is: an image, a shard, a list or a report."""

from __future__ import annotations

from enum import StrEnum

from pipeline.contract.spec import InputFormat, InputSpec, suffixes
from pipeline.sources.formats.list_files import LIST_SUFFIXES, PARQUET_SUFFIXES
from pipeline.sources.formats.tar import TAR_SUFFIXES

MANIFEST = "manifest.json"


class Kind(StrEnum):
    """What an object holds. Lists and reports stand for the objects that they name."""

    IMAGE = "image"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    LIST = "list"
    INVENTORY = "inventory"


def kind_of_named(path: str, input_format: InputFormat) -> Kind:
    """What an object is that is named, not found: an image, if nothing says otherwise."""
    if input_format == "list" or input_format == "inventory":
        return Kind(input_format)
    lowered = path.lower()
    if lowered.endswith(TAR_SUFFIXES):
        return Kind.WEBDATASET
    if lowered.endswith(PARQUET_SUFFIXES):
        return Kind.PARQUET
    if input_format == "auto" and lowered.endswith(LIST_SUFFIXES):
        return Kind.LIST
    if input_format == "auto" and lowered.rpartition("/")[2] == MANIFEST:
        return Kind.INVENTORY
    return Kind.IMAGE


def kind_of_found(path: str, inputs: InputSpec) -> Kind | None:
    """What an object is by its extension, None if the run does not want it."""
    lowered, wanted = path.lower(), inputs.format
    if wanted in ("auto", "inventory", "images") and lowered.endswith(suffixes(inputs.extensions)):
        return Kind.IMAGE
    if wanted in ("auto", "inventory", "webdataset") and lowered.endswith(TAR_SUFFIXES):
        return Kind.WEBDATASET
    if wanted in ("auto", "inventory", "parquet") and lowered.endswith(PARQUET_SUFFIXES):
        return Kind.PARQUET
    if wanted == "list" and lowered.endswith(LIST_SUFFIXES + PARQUET_SUFFIXES):
        return Kind.LIST
    return None
