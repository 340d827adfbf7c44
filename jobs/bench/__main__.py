"""Measure what a run costs.

Without a command: what each stage can do, what the whole run reaches, and what limits it, on this
machine or on the cluster of RAY_ADDRESS, with your images and your model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.bench import arguments as flags
from jobs.bench.measure import machine
from jobs.cli import command
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import Dtype

Command = Callable[[argparse.Namespace], None]


def whole(a: argparse.Namespace) -> None:
    """Stage ceilings and end to end; with --peers also the contest."""
    from jobs.bench.ceilings.end_to_end import bench, report

    names = ("null", "decode", "model", "end-to-end") if a.stage == "all" else (a.stage,)
    found: dict[str, Any] = {}
    with _scratch() as scratch:
        spec = flags.run_spec(a, scratch)
        if a.stage != "none":
            measured = bench(spec, a.images, names, scratch)
            found |= measured.to_dict()
            print(report(measured))
        if a.peers:
            found["peers"] = _peers(a, scratch)
    _save(a, found)


def _peers(a: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from jobs.bench.contest.report import NOTES, peers_table
    from jobs.bench.contest.rounds import contest
    from jobs.bench.measure.inputs import copy_images
    from jobs.bench.synthetic.models import copy_model

    spec = flags.run_spec(a, scratch)
    images = copy_images(spec.inputs, a.images, scratch / "photos")
    model = copy_model(spec.model.source, scratch / "weights")
    dtypes: tuple[Dtype, ...] = (a.dtype,) if a.dtype else ("float32", "bfloat16")
    results = contest(flags.our_contestants(spec), images, model, dtypes, a.rounds)
    print(f"\n{peers_table(results)}\n\n{NOTES}")
    return results.to_dict()


def grow(a: argparse.Namespace) -> None:
    """Runs of growing size."""
    from jobs.bench.campaigns import growth
    from jobs.bench.campaigns.growth_table import growth_table

    with _scratch() as scratch:
        spec = flags.run_spec(a, scratch)
        if a.inputs:
            steps = [growth.step(spec, str(scratch / "out"))]
        else:
            steps = growth.grow(spec, a.images, scratch)
    print(growth_table(steps))
    _save(a, growth.to_dict(steps))


def nodes(a: argparse.Namespace) -> None:
    """A run over simulated nodes."""
    from jobs.bench.campaigns.nodes import run_on_nodes
    from jobs.bench.measure.inputs import sample
    from jobs.bench.measure.tables import table

    with _scratch() as scratch:
        spec = sample(flags.run_spec(a, scratch), a.images, scratch)
        split = run_on_nodes(spec, a.nodes)
    print(table(("node", "images decoded", "images inferred"), split.rows()))
    print(f"{split.measured.images} images, {split.cpus_per_node} CPUs per node")
    _save(a, split.measured.summary())


def compare(a: argparse.Namespace) -> None:
    """One INPUT against another."""
    from jobs.bench.campaigns.compare import compare as measure
    from jobs.bench.measure.tables import table

    with _scratch() as scratch:
        sides = measure(flags.run_spec(a, scratch), a.inputs, a.images, a.rounds, scratch)
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
    _save(a, {"sides": [vars(side) for side in sides], "shares": shares})


def decode(a: argparse.Namespace) -> None:
    """Every decode mode on one thread."""
    from jobs.bench.components.decoding import bench_decode

    for mode, numbers in bench_decode(a.inputs, a.size, a.rounds).items():
        print(json.dumps({"mode": mode} | numbers))


def plan(a: argparse.Namespace) -> None:
    """The plan of a night."""
    from jobs.bench.components.plan import bench_plan

    print(json.dumps(bench_plan(a.rows)))


def listing(a: argparse.Namespace) -> None:
    """A listing as a run takes it."""
    from jobs.bench.components.listing import bench_listing

    print(json.dumps(bench_listing(a.input, a.objects)))


def images(a: argparse.Namespace) -> None:
    """Made-up photographs."""
    from jobs.bench.synthetic.images import write_images

    paths = write_images(a.directory, a.number)
    mean = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"{len(paths)} JPEG files of {mean / 1000:.0f} kB on average in {a.directory}")


COMMANDS: dict[str, Command] = {
    "growth": grow,
    "nodes": nodes,
    "compare": compare,
    "decode": decode,
    "plan": plan,
    "listing": listing,
    "images": images,
}


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _save(a: argparse.Namespace, found: dict[str, Any]) -> None:
    """Everything measured, on what, as JSON."""
    if a.json is None:
        return
    given = {name: value for name, value in vars(a).items() if name != "json"}
    about = {
        "arguments": given,
        "hardware": machine.hardware(),
        "versions": machine.all_versions(),
    }
    a.json.write_text(json.dumps(about | found, indent=2, default=str) + "\n")


def job(a: argparse.Namespace) -> ExitCode:
    """Measure and print."""
    COMMANDS.get(getattr(a, "command", ""), whole)(a)
    return ExitCode.OK


def main() -> int:
    """Entry point of ``cvt-bench``."""
    is_command = len(sys.argv) > 1 and sys.argv[1] in COMMANDS
    description = __doc__ or ""
    parser = (
        flags.command_parser(description, tuple(COMMANDS))
        if is_command
        else flags.whole_parser(description, tuple(COMMANDS))
    )
    return command.main(job, parser)


if __name__ == "__main__":
    sys.exit(main())
