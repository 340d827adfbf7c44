"""Subcommands that measure one part alone."""

from __future__ import annotations

import argparse
import json

from jobs.bench.subcommand import (
    Subcommand,
    add_json,
    add_rounds,
    new_output,
    save,
    scratch_directory,
)
from jobs.bench.synthetic.presets import PUBLISHED
from pipeline.contract.errors import ExitCode, UsageError


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="directories, globs, files")
    parser.add_argument("--size", type=int, default=224, metavar="S",
        help="of the model's input (default: %(default)s)")  # fmt: skip
    add_rounds(parser, 5)


def _decode(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.decoding import bench_decode

    for mode, numbers in bench_decode(a.inputs, a.size, a.rounds).items():
        print(json.dumps({"mode": mode} | numbers))
    return ExitCode.OK


def _add_feed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="single images, as for classify")
    parser.add_argument("--images", type=int, default=512, metavar="N",
        help="of a task (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=256, metavar="N",
        help="of a block (default: %(default)s)")  # fmt: skip
    parser.add_argument("--size", type=int, default=224, metavar="S",
        help="of the model's input (default: %(default)s)")  # fmt: skip
    add_rounds(parser, 5)


def _feed(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.feeding import bench_feed
    from jobs.bench.measure.tables import table

    found = bench_feed(a.inputs, a.images, a.rows, a.size, a.rounds)
    rows = [(name, f"{value:.3f}") for name, value in found.items()]
    print(
        table(("beyond decoding", "CPU ms/image"), [*rows, ("sum", f"{sum(found.values()):.3f}")])
    )
    return ExitCode.OK


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N",
        help="of the ledger, and of the listing (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shards", type=int, default=0, metavar="K",
        help="actors of Ray that hold the ledger (default: it is in this process)")  # fmt: skip
    parser.add_argument("--unfinished", action="store_true",
        help="the rows are those of an unfinished run, which is continued")  # fmt: skip
    add_json(parser)


def _plan(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.plan import bench_plan

    found = bench_plan(a.rows, a.shards, unfinished=a.unfinished)
    print(json.dumps(found))
    save(a, found)
    return ExitCode.OK


def _add_close(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N",
        help="of the run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--dimensions", type=int, default=384, metavar="D",
        help="of their embeddings; 0 for labels alone (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shuffle", action="store_true",
        help="rows were computed in no order of their names")  # fmt: skip
    parser.add_argument("--output", metavar="OUT",
        help="where the run is made up: a directory or URI that does not exist yet (default: a "
        "temporary directory)")  # fmt: skip
    add_json(parser)


def _close(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.closing import bench_close

    with scratch_directory() as scratch:
        store = new_output(a.output or str(scratch / "out"))
        found = bench_close(store, a.rows, a.dimensions, shuffle=a.shuffle)
    print(json.dumps(found))
    save(a, found)
    return ExitCode.OK


def _add_listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", metavar="INPUT", help="as for jobs.classify")
    parser.add_argument("--objects", type=int, default=1_000_000, metavar="N",
        help="of the S3 Inventory report made up without INPUT (default: %(default)s)")  # fmt: skip
    parser.add_argument("--late", type=float, metavar="MS",
        help="make up a bucket of S3 instead, whose pages come so late")  # fmt: skip
    parser.add_argument("--tasks", action="store_true",
        help="what a name costs the driver, alone and with tasks of Ray that list")  # fmt: skip
    parser.add_argument("--shards", type=int, default=0, metavar="K",
        help="with --tasks: actors of Ray that hold the ledger")  # fmt: skip


def _listing(a: argparse.Namespace) -> ExitCode:
    if a.input is not None and a.late is not None:
        raise UsageError("--late makes up a bucket; drop it, or the INPUT")
    if a.tasks and a.late is None:
        raise UsageError("--tasks needs --late, which makes up a bucket")
    if a.shards and not a.tasks:
        raise UsageError("--shards needs --tasks, which compares with a ledger")
    from jobs.bench.components.listing import bench_listing, bench_listing_tasks

    if a.tasks:
        print(json.dumps(bench_listing_tasks(a.objects, a.late, a.shards)))
    else:
        print(json.dumps(bench_listing(a.input, a.objects, a.late)))
    return ExitCode.OK


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="a prefix of images in an object store")
    add_rounds(parser, 3)


def _reading(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.reading import bench_reading
    from jobs.bench.measure.tables import table

    found = bench_reading(a.input, a.rounds)
    rows = [(name, f"{value:.2f}") for name, value in found.items()]
    print(table(("way to read", "CPU ms/object"), rows))
    return ExitCode.OK


def _add_network(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--preset", choices=PUBLISHED, default=PUBLISHED[0],
        help="a published shape with random weights (default: %(default)s)")  # fmt: skip
    model.add_argument("--model", metavar="SOURCE", help="a checkpoint instead")
    parser.add_argument("--size", type=int, metavar="S",
        help="pixels a side (default: the model's own, or 224)")  # fmt: skip
    parser.add_argument("--batch", type=int, default=8, metavar="N",
        help="images in a call (default: %(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N",
        help="per way (default: %(default)s)")  # fmt: skip
    parser.add_argument("--only", metavar="REGEX", default="", help="ways by name, and the first")
    parser.add_argument("--compile", action="store_true", help="with torch.compile of transformers")
    add_rounds(parser, 5)
    add_json(parser)


def _network(a: argparse.Namespace) -> ExitCode:
    from jobs.bench.components.network import bench_network

    bench_network(a)
    return ExitCode.OK


DECODE = Subcommand(
    name="decode",
    help="decode local images in every mode, on one thread",
    add_arguments=_add_decode,
    measure=_decode,
)
FEED = Subcommand(
    name="feed",
    help="what a decode task costs beyond decoding",
    add_arguments=_add_feed,
    measure=_feed,
)
PLAN = Subcommand(
    name="plan",
    help="compare a listing with a ledger of as many rows",
    add_arguments=_add_plan,
    measure=_plan,
)
CLOSE = Subcommand(
    name="close",
    help="merge, count and publish a made-up run, as every run ends",
    add_arguments=_add_close,
    measure=_close,
)
LISTING = Subcommand(
    name="listing",
    help="list an INPUT, or a made-up inventory, as a run does",
    add_arguments=_add_listing,
    measure=_listing,
)
READING = Subcommand(
    name="reading",
    help="read the objects of a store as a run does, and through fsspec",
    add_arguments=_add_reading,
    measure=_reading,
)
NETWORK = Subcommand(
    name="network",
    help="every way to run a CvT on this CPU, with its speed and its drift",
    add_arguments=_add_network,
    measure=_network,
)
