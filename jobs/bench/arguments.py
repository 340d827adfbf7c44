"""The flags of the run that a benchmark measures: those of jobs.classify, with another choice of
model and defaults of their own."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from jobs.bench.synthetic.presets import PRESET_NAMES
from jobs.cli import flags
from pipeline.contract.spec import (
    SETTINGS,
    ComputeSpec,
    Dtype,
    InputSpec,
    ModelSpec,
    OutputSpec,
    RunSpec,
    Setting,
    settings,
)

_MODEL = ("inputs.format", "model.runtime", "model.decode")
_COMPUTE = settings(ComputeSpec, "compute")


def add_run(parser: argparse.ArgumentParser, *, images: int) -> None:
    """Add the flags of a run over the first ``images`` of its INPUT."""
    parser.add_argument("--images", type=int, default=images, metavar="N",
        help="take the first N of the INPUT (default: %(default)s)")  # fmt: skip
    add_model(parser)


def add_model(parser: argparse.ArgumentParser, default_preset: str | None = None) -> None:
    """Add the flags of a run whose INPUT is decided elsewhere."""
    add_source(parser, default_preset)
    flags.add(parser, *(SETTINGS[place] for place in _MODEL), _dtype(), *_COMPUTE)
    parser.add_argument("--output", metavar="OUT",
        help="where results go meanwhile; on a cluster, where all nodes reach it")  # fmt: skip


def add_source(parser: argparse.ArgumentParser, default_preset: str | None = None) -> None:
    """Add what names the model; without a default it must be named."""
    model = parser.add_mutually_exclusive_group(required=default_preset is None)
    model.add_argument("--model", metavar="SOURCE", help=SETTINGS["model.source"].about.help)
    model.add_argument("--preset", choices=PRESET_NAMES, default=default_preset,
        help="a published shape with random weights instead")  # fmt: skip


def _dtype() -> Setting:
    """The setting as what is computed in, without a default: a contest has two."""
    one = SETTINGS["model.dtype"]
    default = (
        "bfloat16 where the hardware has it, else float32; with --peers float32, then bfloat16"
    )
    about = replace(one.about, help=f"arithmetic of the model (default: {default})")
    return replace(one, type=Dtype, default=None, about=about)


def run_spec(a: argparse.Namespace, scratch: Path) -> RunSpec:
    """The run to measure; a preset's model and, by default, its output are below ``scratch``."""
    source = source_of(a, scratch)
    return RunSpec(
        inputs=InputSpec(uris=tuple(a.inputs) or ("made-up",), format=a.input_format),
        model=ModelSpec(
            source=source, dtype=a.dtype or ModelSpec.dtype, runtime=a.runtime, decode=a.decode
        ),
        output=OutputSpec(uri=a.output or str(scratch / "out"), top_k=5),
        compute=flags.from_flags(ComputeSpec, _COMPUTE, a),
    )


def source_of(a: argparse.Namespace, scratch: Path) -> str:
    """The model of ``add_source``; a preset's is written below ``scratch``."""
    return a.model or _write_preset(scratch / "model", a.preset)


def _write_preset(directory: Path, preset: str) -> str:
    from jobs.bench.synthetic.models import write_model

    return str(write_model(directory, preset))
