"""``jobs.bench run``: stage ceilings, the whole run, and others' scripts for the same job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.bench.arguments import add_run, run_spec
from jobs.bench.subcommand import Subcommand, add_json, add_rounds, save, scratch_directory
from pipeline.contract.errors import ExitCode, UsageError
from pipeline.contract.spec import Dtype

STAGES = ("all", "null", "decode", "model", "end-to-end", "none")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="as for jobs.classify")
    parser.add_argument("--stage", choices=STAGES, default="all",
        help="measure only this: Ray alone (null), fetch and decode with a null model, the model "
        "with a null decode, the whole; with none, only --peers")  # fmt: skip
    parser.add_argument("--peers", action="store_true",
        help="also run others' scripts for the same job: Ray's example, a torch DataLoader, "
        "transformers' pipeline, Daft")  # fmt: skip
    add_run(parser, images=500)
    add_rounds(parser, 2)
    add_json(parser)


def _measure(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.ceilings.end_to_end import bench, report

    if a.peers and a.dtype == "tf32":
        raise UsageError("--peers have no tf32; compare in float32, bfloat16 or float16")
    names = ("null", "decode", "model", "end-to-end") if a.stage == "all" else (a.stage,)
    found: dict[str, Any] = {}
    with scratch_directory() as scratch:
        spec = run_spec(a, scratch)
        if a.stage != "none":
            measured = bench(spec, a.images, names, scratch)
            found |= measured.to_dict()
            print(report(measured))
        if a.peers:
            found["peers"] = _peers(a, scratch)
    save(a, found)
    return ExitCode.OK


def _peers(a: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from jobs.bench.contest.report import NOTES, peers_table
    from jobs.bench.contest.rounds import contest, contest_device, our_contestants
    from jobs.bench.measure.inputs import copy_images
    from jobs.bench.synthetic.models import copy_model

    spec = run_spec(a, scratch)
    images = copy_images(spec.inputs, a.images, scratch / "photos")
    model = copy_model(spec.model.source, scratch / "weights")
    dtypes: tuple[Dtype, ...] = (a.dtype,) if a.dtype else ("float32", "bfloat16")
    device = contest_device(spec)
    ours = our_contestants(spec, device)
    results = contest(ours, images, model, dtypes, a.rounds, device)
    print(f"\n{peers_table(results)}\n\n{NOTES}")
    return results.to_dict()


RUN = Subcommand(
    name="run",
    help="what each stage can do, what the whole run reaches, and what limits it (the default)",
    add_arguments=_add_arguments,
    measure=_measure,
)
