"""Subcommands that measure several whole runs."""

from __future__ import annotations

import argparse
import json

from jobs.bench.arguments import add_model, add_run, add_source, run_spec, source_of
from jobs.bench.subcommand import (
    Subcommand,
    add_json,
    add_rounds,
    new_output,
    save,
    scratch_directory,
)
from pipeline.contract.errors import ExitCode, UsageError


def _add_growth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", metavar="INPUT",
        help="one run over this, say a bucket, instead of made-up images")  # fmt: skip
    parser.add_argument("--images", type=int, nargs="+", metavar="N",
        default=[1000, 10_000, 100_000], help="sizes (default: %(default)s)")  # fmt: skip
    add_model(parser, default_preset="small")
    add_json(parser)


def _growth(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.campaigns import growth
    from jobs.bench.campaigns.growth_table import growth_table

    with scratch_directory() as scratch:
        spec = run_spec(a, scratch)
        if a.inputs:
            steps = [growth.step(spec, str(scratch / "out"))]
        else:
            steps = growth.grow(spec, a.images, scratch)
    print(growth_table(steps))
    save(a, growth.to_dict(steps))
    return ExitCode.OK


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="as for jobs.classify")
    parser.add_argument("--nodes", type=int, default=2, metavar="N",
        help="how many (default: %(default)s)")  # fmt: skip
    add_run(parser, images=500)
    add_json(parser)


def _nodes(a: argparse.Namespace) -> ExitCode:
    if a.nodes < 1:
        raise UsageError(f"--nodes is {a.nodes}; it must be 1 or more")
    from jobs.bench.campaigns.nodes import run_on_nodes
    from jobs.bench.measure.inputs import sample
    from jobs.bench.measure.tables import table

    with scratch_directory() as scratch:
        spec = sample(run_spec(a, scratch), a.images, scratch)
        split = run_on_nodes(spec, a.nodes)
    print(table(("node", "images decoded", "images inferred"), split.rows()))
    print(f"{split.measured.images} images, {split.cpus_per_node} CPUs per node")
    save(a, split.measured.summary())
    return ExitCode.OK


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs=2, metavar="INPUT", help="each as for jobs.classify")
    add_run(parser, images=500)
    add_rounds(parser, 1)
    add_json(parser)


def _compare(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.campaigns.compare import compare
    from jobs.bench.measure.tables import table

    with scratch_directory() as scratch:
        sides = compare(run_spec(a, scratch), a.inputs, a.images, a.rounds, scratch)
    first, second = sides
    shares = {
        "decode": first.decode / second.decode,
        "end_to_end": first.end_to_end / second.end_to_end,
    }
    rows: list[tuple[str, ...]] = [
        (side.uri, f"{side.decode:.1f}", f"{side.end_to_end:.1f}") for side in sides
    ]
    rows.append(("the first of the second", *[f"{share:.1%}" for share in shares.values()]))
    print(table(("INPUT", "decode, images/s", "end to end, images/s"), rows))
    save(a, {"sides": [vars(side) for side in sides], "shares": shares})
    return ExitCode.OK


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="an image of it is classified")
    add_model(parser, default_preset="small")


def _start(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.campaigns.start import bench_start

    with scratch_directory() as scratch:
        spec = run_spec(a, scratch)
        print(bench_start(spec.inputs.uris, spec.model.source, scratch))
    return ExitCode.OK


def _add_nights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=1000, metavar="N",
        help="closed runs, made up (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=100, metavar="N",
        help="of each (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", metavar="OUT",
        help="where they are made up: a directory or URI that does not exist yet (default: a "
        "temporary directory)")  # fmt: skip
    add_json(parser)


def _nights(a: argparse.Namespace) -> ExitCode:
    if min(a.runs, a.rows) < 1:
        raise UsageError(f"--runs is {a.runs}, --rows {a.rows}; both must be 1 or more")
    from jobs.bench.campaigns.nights import bench_nights

    with scratch_directory() as scratch:
        store = new_output(a.output or str(scratch / "out"))
        found = bench_nights(store, a.runs, a.rows)
    print(json.dumps(found))
    save(a, found)
    return ExitCode.OK


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", help="a new prefix on S3: s3://bucket/prefix")
    parser.add_argument("--files", type=int, default=100, metavar="N",
        help="of a run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--mib", type=int, default=4, metavar="M",
        help="of each (default: %(default)s)")  # fmt: skip
    add_rounds(parser, 3)
    add_json(parser)


def _publish(a: argparse.Namespace) -> ExitCode:
    if min(a.files, a.mib) < 1:
        raise UsageError(f"--files is {a.files}, --mib {a.mib}; both must be 1 or more")
    from jobs.bench.campaigns.publishing import bench_publish

    found = bench_publish(new_output(a.output), a.files, a.mib, a.rounds)
    print(json.dumps(found))
    save(a, found)
    return ExitCode.OK


def _add_training(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--batch-size", type=int, default=50, metavar="N",
        help="images a step (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=20, metavar="N",
        help="steps a round, after one that is not counted (default: %(default)s)")  # fmt: skip
    add_rounds(parser, 5)
    add_json(parser)


def _training(a: argparse.Namespace) -> ExitCode:
    if min(a.batch_size, a.steps, a.rounds) < 1:
        raise UsageError(
            f"--batch-size is {a.batch_size}, --steps {a.steps}, --rounds {a.rounds}; all must be "
            "1 or more"
        )
    from jobs.bench.campaigns.training import compare
    from jobs.bench.measure.tables import table

    with scratch_directory() as scratch:
        found = compare(source_of(a, scratch), a.batch_size, a.steps, a.rounds)
    rows = [
        ("transformers' Trainer", f"{found.theirs:.2f}", ""),
        ("ours", f"{found.ours:.2f}", f"{found.ratio:.2f}"),
    ]
    print(table(("training", "images per CPU second", "ours / theirs"), rows))
    save(a, vars(found))
    return ExitCode.OK


START = Subcommand(
    name="start",
    help="what the start of a run costs: CPU time of every process until the first row",
    add_arguments=_add_start,
    measure=_start,
)
GROWTH = Subcommand(
    name="growth",
    help="speed and memory of runs of growing size",
    add_arguments=_add_growth,
    measure=_growth,
)
NODES = Subcommand(
    name="nodes",
    help="one run over nodes simulated on this machine",
    add_arguments=_add_nodes,
    measure=_nodes,
)
COMPARE = Subcommand(
    name="compare",
    help="speed on one INPUT as a share of that on another",
    add_arguments=_add_compare,
    measure=_compare,
)
NIGHTS = Subcommand(
    name="nights",
    help="what a night costs after many nights",
    add_arguments=_add_nights,
    measure=_nights,
)
PUBLISH = Subcommand(
    name="publish",
    help="how fast the files of a run become visible on S3, and by copies",
    add_arguments=_add_publish,
    measure=_publish,
)
TRAINING = Subcommand(
    name="training",
    help="a step of a training against transformers' Trainer, which has to be installed",
    add_arguments=_add_training,
    measure=_training,
)
