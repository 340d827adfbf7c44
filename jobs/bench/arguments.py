"""The command line of the benchmarks, and the run that it describes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from jobs.bench.synthetic.models import PRESET_NAMES, write_model
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import (
    ComputeSpec,
    DecodeMode,
    Dtype,
    InputFormat,
    InputSpec,
    ModelSpec,
    OutputSpec,
    RunSpec,
    Runtime,
)

STAGES = ("all", "null", "decode", "model", "end-to-end", "none")
_PROG = "python -m jobs.bench"


def whole_parser(description: str, commands: Sequence[str]) -> argparse.ArgumentParser:
    """Of the main use, which has no command."""
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description=description,
        epilog=f"Commands, each with its own --help: {', '.join(commands)}.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="as for jobs.classify")
    add = parser.add_argument
    add("--stage", choices=STAGES, default="all",
        help="measure only this: Ray alone (null), fetch and decode with a null model, the model "
        "with a null decode, the whole; none leaves --peers")  # fmt: skip
    add("--peers", action="store_true",
        help="also run others' scripts for the same job: Ray's example, a torch DataLoader, "
        "transformers' pipeline, Daft")  # fmt: skip
    _add_run(parser, images=500)
    _add_rounds(parser, 2)
    return parser


def command_parser(description: str, commands: Sequence[str]) -> argparse.ArgumentParser:
    """Of everything else."""
    parser = argparse.ArgumentParser(prog=_PROG, description=description)
    group = parser.add_subparsers(dest="command", required=True, metavar="|".join(commands))
    _add_growth(group)
    _add_inputs_commands(group)
    decode = group.add_parser("decode", help="decode local images in every mode, on one thread")
    decode.add_argument("inputs", nargs="+", metavar="INPUT", help="directories, globs, files")
    decode.add_argument("--size", type=int, default=224, metavar="S", help="of the model's input")
    _add_rounds(decode, 5)
    plan = group.add_parser("plan", help="compare a listing with a ledger of as many rows")
    plan.add_argument("--rows", type=int, default=1_000_000, metavar="N")
    listing = group.add_parser("listing", help="list an INPUT, or a made-up inventory, as a run")
    listing.add_argument("input", nargs="?", metavar="INPUT")
    listing.add_argument("--objects", type=int, default=1_000_000, metavar="N",
        help="of the made-up S3 Inventory report")  # fmt: skip
    images = group.add_parser("images", help="write made-up photographs, 500x375, about 110 kB")
    images.add_argument("directory", type=Path, metavar="DIRECTORY")
    images.add_argument("--number", type=int, default=200, metavar="N")
    for other in (decode, plan, listing, images):
        other.add_argument("--debug", action="store_true", help="tracebacks")
    return parser


def _add_growth(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    growth = group.add_parser("growth", help="speed and memory of runs of growing size")
    growth.add_argument("inputs", nargs="*", metavar="INPUT",
        help="one run over this instead of made-up images, a bucket say")  # fmt: skip
    growth.add_argument("--images", type=int, nargs="+", metavar="N",
        default=[1000, 10_000, 100_000], help="sizes (default: %(default)s)")  # fmt: skip
    _add_model(growth, default_preset="small")


def _add_inputs_commands(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    nodes = group.add_parser("nodes", help="one run over nodes simulated on this machine")
    nodes.add_argument("inputs", nargs="+", metavar="INPUT")
    nodes.add_argument("--nodes", type=int, default=2, metavar="N")
    _add_run(nodes, images=500)
    compare = group.add_parser("compare", help="speed on INPUT as a share of that on OTHER")
    compare.add_argument("inputs", nargs=2, metavar=("INPUT", "OTHER"))
    _add_run(compare, images=500)
    _add_rounds(compare, 1)


def _add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument("--rounds", type=int, default=default, metavar="N",
        help="repeat in turns and take medians (default %(default)s)")  # fmt: skip


def _add_run(parser: argparse.ArgumentParser, images: int) -> None:
    parser.add_argument("--images", type=int, default=images, metavar="N",
        help="take the first N of the INPUT (default %(default)s)")  # fmt: skip
    _add_model(parser, default_preset=None)


def _add_model(parser: argparse.ArgumentParser, default_preset: str | None) -> None:
    model = parser.add_mutually_exclusive_group(required=default_preset is None)
    model.add_argument("--model", metavar="SOURCE", help="checkpoint, as for jobs.classify")
    model.add_argument("--preset", choices=PRESET_NAMES, default=default_preset,
        help="a published shape with random weights instead")  # fmt: skip
    add = parser.add_argument
    add("--input-format", choices=get_args(InputFormat), default="auto")
    add("--dtype", choices=get_args(Dtype), help="(default float32; --peers: float32, bfloat16)")
    add("--runtime", choices=get_args(Runtime), default=ModelSpec.runtime)
    add("--decode", choices=get_args(DecodeMode), default=ModelSpec.decode)
    add("--num-gpus", type=float, metavar="N")
    add("--num-actors", type=int, metavar="N")
    add("--num-cpus-per-actor", type=int, default=1, metavar="N")
    add("--batch-size", type=int, metavar="N")
    add("--block-size", type=int, default=ComputeSpec.block_size, metavar="N")
    add("--output", metavar="OUT",
        help="where results go meanwhile; on a cluster, what all nodes reach")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write everything measured, and on what")
    add("--debug", action="store_true", help="tracebacks")


def run_spec(a: argparse.Namespace, scratch: Path) -> RunSpec:
    """The run to measure."""
    if getattr(a, "nodes", 1) < 1:
        raise UsageError(f"--nodes is {a.nodes}; it must be 1 or more")
    source = a.model or str(write_model(scratch / "model", a.preset))
    return RunSpec(
        inputs=InputSpec(uris=tuple(a.inputs) or ("made-up",), format=a.input_format),
        model=ModelSpec(
            source=source, dtype=a.dtype or "float32", runtime=a.runtime, decode=a.decode
        ),
        output=OutputSpec(uri=a.output or str(scratch / "out"), top_k=5),
        compute=ComputeSpec(
            num_gpus=a.num_gpus,
            num_actors=a.num_actors,
            num_cpus_per_actor=a.num_cpus_per_actor,
            batch_size=a.batch_size,
            block_size=a.block_size,
        ),
    )


def our_contestants(spec: RunSpec) -> dict[str, RunSpec]:
    """Our pipeline with every runtime that is installed; torch first."""
    runtimes: list[Runtime] = ["torch"]
    if find_spec("openvino") is not None:
        runtimes.append("openvino")
    return {
        f"ours, {name}": replace(spec, model=replace(spec.model, runtime=name)) for name in runtimes
    }
