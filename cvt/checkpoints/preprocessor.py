"""preprocessor_config.json of any version of transformers: found, and in one spelling."""

import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final

from cvt.errors import ConfigError
from cvt.interface.fields import FLAG, read_object
from cvt.interface.sources import Source, display, open_source

CONFIG_NAME: Final = "preprocessor_config.json"
PROCESSOR_TYPES: Final = (
    "ConvNextImageProcessor",
    "ConvNextImageProcessorFast",
    "ConvNextImageProcessorPil",
    "ConvNextFeatureExtractor",
)


def find_preprocessor(source: Source, revision: str | None) -> dict[str, Any] | None:
    """The content of the file that belongs to ``source``, or is it; None if there is none.

    Raises:
        ConfigError: the file that is meant does not exist, or is not a JSON object.
    """
    with open_source(source, revision) as (fetch, name):
        is_itself = name is not None and name.endswith(".json") and name != "config.json"
        path = fetch(name if is_itself and name else CONFIG_NAME)
        if path is None and is_itself:
            raise ConfigError(f"{display(source)}: no such file")
        try:
            return None if path is None else read_object(path)
        except ConfigError as error:
            raise ConfigError(f"{display(source)}: {error}") from error


def spelled_as(names: frozenset[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of these names that a file has, with a square size as one number.

    Raises:
        ConfigError: it describes anything other than resizing and cropping to a square.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    if kind is not None and kind not in PROCESSOR_TYPES:
        name = reprlib.repr(kind).strip("'")
        raise ConfigError(f"it is for {name}; CvT needs ConvNextImageProcessor")
    values = {name: config[name] for name in names if config.get(name) is not None}
    if "size" in values:
        values["size"] = square(values["size"], "size")
    return values


def check_crop(config: Mapping[str, Any], size: int) -> None:
    """Check that a file that also asks for a crop means the one of ``size``.

    Raises:
        ConfigError: it does not.
    """
    is_wanted = config.get("do_center_crop")
    if is_wanted is None or not FLAG.read("do_center_crop", is_wanted):
        return
    if config.get("crop_size") is not None:
        crop = square(config["crop_size"], "crop_size")
        if crop != size:
            raise ConfigError(f"crop_size {reprlib.repr(crop)} differs from size {size}")


def square(size: Any, name: str) -> int:
    """The one number in any spelling of a square size.

    Raises:
        ConfigError: it is no number, or more than one.
    """
    if isinstance(size, Mapping):
        known = set(size) in ({"shortest_edge"}, {"height", "width"})
        numbers = list(size.values()) if known else []
    else:
        numbers = list(size) if isinstance(size, list | tuple) else [size]
    if not numbers or any(type(n) is not int or n != numbers[0] for n in numbers):
        raise ConfigError(f"{name} {reprlib.repr(size)} is not one number for a square image")
    return int(numbers[0])


def size_mismatch(size: int, config: Mapping[str, Any], name: str = "") -> str | None:
    """One line that says that preprocessing's size is not the checkpoint's; None if they agree.

    The checkpoint's is ``image_size`` in its config.json, as in older files, or in its name, such
    as microsoft/cvt-13-384-22k.
    """
    told = config.get("image_size")
    origin = "its config.json says"
    if told is None:
        match = re.search(r"(?<![0-9])(224|384)(?![0-9])", name.rstrip("/").rsplit("/", 1)[-1])
        if match is None:
            return None
        told, origin = int(match[1]), f"its name, {name}, says"
    if told == size:
        return None
    return f"images are resized to {size}, but the checkpoint is for {told} ({origin} so): set size"
