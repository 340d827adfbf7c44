"""The flags that every run takes, and the spec that they describe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from pipeline.contract.errors import one_line
from pipeline.contract.spec import (
    IMAGE_EXTENSIONS,
    PILLOW_PIXEL_LIMIT,
    Activation,
    ComputeSpec,
    DecodeMode,
    Dtype,
    EmbeddingDtype,
    InputFormat,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    Pooling,
    RunSpec,
    Runtime,
    Scores,
    Sink,
)
from pipeline.sources.formats.parquet import IMAGE_COLUMNS
from pipeline.sources.lists import URI_COLUMNS

EXIT_CODES = (
    "Exit codes: 0 done, 1 could not finish (start again to continue), 2 wrong usage, "
    "3 too many images failed, or the run drifted. Credentials come from the environment alone."
)


def run_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags that every run takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{name}",
        description=description,
        epilog=EXIT_CODES,
    )
    _add_io(parser)
    _add_compute(parser)
    _add_policy(parser)
    add_increments(parser)
    add_control(parser)
    return parser


def _add_io(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="directory, prefix, glob or image; WebDataset .tar; .parquet with image bytes or "
        "URIs; .txt, .csv or .jsonl list of URIs; manifest.json of an S3 Inventory report; each a "
        "path or an fsspec URI (s3://...)",
    )
    add = parser.add_argument
    add("--output", required=True, metavar="OUT", help="directory or URI of the results")
    add(
        "--model",
        required=True,
        metavar="SOURCE",
        help="checkpoint: directory, file, URI or hub name",
    )
    add("--input-format", choices=get_args(InputFormat), default="auto",
        help="what an INPUT is, where its name does not tell")  # fmt: skip
    add("--extensions", type=_names, default=IMAGE_EXTENSIONS, metavar="E,E,...",
        help="of images, in directories and tars, instead of the usual ones")  # fmt: skip
    add("--uri-column", metavar="NAME",
        help=f"of a list, with the names (first of {', '.join(URI_COLUMNS)})")  # fmt: skip
    add("--image-column", metavar="NAME",
        help=f"of Parquet files (first of {', '.join(IMAGE_COLUMNS)})")  # fmt: skip
    add("--keep", type=_names, default=(), metavar="A,B,...",
        help="columns of lists and Parquet files, and json, cls, txt beside a tar's images, to "
        "carry along; * for all")  # fmt: skip
    add("--allow-private-urls", action="store_true",
        help="fetch listed http(s) images also from private and local addresses")  # fmt: skip
    add("--activation", choices=get_args(Activation), help="override the checkpoint's convention")
    add("--image-size", type=int, metavar="S", help="override the preprocessing's size")
    add("--decode", choices=get_args(DecodeMode), default=ModelSpec.decode,
        help="exact: bit-equal to the reference; fast: within 2 grey levels, twice as fast; "
        "draft: the same, and large JPEGs at reduced scale (default: %(default)s)")  # fmt: skip
    add("--dtype", choices=get_args(Dtype), default="float32", help="arithmetic of the model")
    add("--runtime", choices=get_args(Runtime), default=ModelSpec.runtime,
        help="what runs it (default: %(default)s); openvino, an extra, is for CPUs")  # fmt: skip
    add("--embedding-dtype", choices=get_args(EmbeddingDtype), default="float32")
    add("--pooling", choices=get_args(Pooling), default="cls_norm", help="what the embedding is")
    add("--normalize", action=argparse.BooleanOptionalAction, default=False,
        help="scale embeddings to length 1")  # fmt: skip
    add(
        "--scores",
        choices=get_args(Scores),
        help="by default what the checkpoint's problem type means",
    )
    add("--thresholds", type=thresholds, metavar="T|FILE.json",
        help="score from which on a class stands in `labels`: a number, or a JSON file of label to "
        'number ("*" for the rest)')  # fmt: skip
    add("--rows-per-file", type=int, metavar="N", help="by default files of about 256 MiB")
    add("--sink", choices=get_args(Sink), default=OutputSpec.sink,
        help="lance: also keep the newest row of every image in OUT/images.lance")  # fmt: skip
    add("--review", type=int, default=OutputSpec.review, metavar="K",
        help="uncertain images to list, and images unlike earlier ones (%(default)s)")  # fmt: skip


def _add_compute(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("compute").add_argument
    add("--num-gpus", type=float, metavar="N", help="GPUs of the run (default: all there are)")
    add("--num-actors", type=int, metavar="N", help="model replicas (default: one per GPU or CPU)")
    add(
        "--num-cpus-per-actor",
        type=int,
        default=1,
        metavar="N",
        help="threads of a replica on CPUs",
    )
    add("--batch-size", type=int, metavar="N", help="default: 64 on a GPU, 8 on a CPU")
    add("--block-size", type=int, default=ComputeSpec.block_size, metavar="N",
        help="images per block of the data flow (default %(default)s)")  # fmt: skip


def _add_policy(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("policy").add_argument
    add("--max-failure-rate", type=float, default=PolicySpec.max_failure_rate, metavar="R",
        help="share of images that may fail before the exit code is 3 (%(default)s)")  # fmt: skip
    add("--fail-on-drift", action="store_true",
        help="exit code 3 also when the run differs much from earlier ones")  # fmt: skip
    add("--max-pixels", type=int, default=PILLOW_PIXEL_LIMIT, metavar="N",
        help="larger images, by their header, are not decoded (default %(default)s)")  # fmt: skip
    add("--max-bytes", type=int, default=InputSpec.max_bytes, metavar="N",
        help="larger files are not fetched (default %(default)s)")  # fmt: skip


INPUT_FLAGS = (
    "extensions",
    "uri_column",
    "image_column",
    "keep",
    "allow_private_urls",
    "max_pixels",
    "max_bytes",
)
INCREMENT_FLAGS = (
    "retry_failed",
    "reuse_content",
    "max_seconds",
    "deadline",
    "full",
    "allow_mixed",
    "discard_open_run",
)


def add_increments(parser: argparse.ArgumentParser) -> None:
    """Flags that say what counts as done, and how long to go on."""
    add = parser.add_argument_group("increments").add_argument
    add("--retry-failed", type=_names, default=(), metavar="CODES",
        help="error codes, comma separated, of earlier failures to try again")  # fmt: skip
    add("--reuse-content", action="store_true",
        help="copy the numbers of an earlier image with the same bytes")  # fmt: skip
    add("--max-seconds", type=float, metavar="S",
        help="stop feeding after this time and leave the rest to the next run")  # fmt: skip
    add("--deadline", metavar="HH:MM", help="the same at a time of day")
    add("--full", action="store_true", help="do everything again")
    add("--allow-mixed", action="store_true", help="let earlier runs of another model stand")
    add("--discard-open-run", action="store_true", help="throw away an unfinished run")


def add_control(parser: argparse.ArgumentParser) -> None:
    """Flags about the command itself."""
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--debug", action="store_true", help="tracebacks and Ray's own log")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def thresholds(text: str) -> float | dict[str, float]:
    """A number, or a JSON file of label to number, as the argument of a flag."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        values = json.loads(Path(text).read_text())
        return {str(label): float(value) for label, value in values.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is neither a number nor a JSON file of label to number: {one_line(error)}"
        ) from error


def run_spec(arguments: argparse.Namespace, *, top_k: int | None, embeddings: bool) -> RunSpec:
    """The spec that the flags describe."""
    a = vars(arguments)

    def pick(*names: str) -> dict[str, Any]:
        return {name: a[name] for name in names}

    return RunSpec(
        inputs=InputSpec(uris=tuple(a["inputs"]), format=a["input_format"], **pick(*INPUT_FLAGS)),
        model=ModelSpec(
            source=a["model"], **pick("activation", "image_size", "dtype", "runtime", "decode")
        ),
        output=OutputSpec(
            uri=a["output"],
            top_k=top_k,
            embeddings=embeddings,
            **pick(
                "scores",
                "thresholds",
                "pooling",
                "normalize",
                "embedding_dtype",
                "rows_per_file",
                "review",
                "sink",
            ),
        ),
        compute=ComputeSpec(
            **pick("num_gpus", "num_actors", "num_cpus_per_actor", "batch_size", "block_size")
        ),
        policy=PolicySpec(**pick("max_failure_rate", "fail_on_drift", *INCREMENT_FLAGS)),
    )
