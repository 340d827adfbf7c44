"""``python -m jobs.bench gpu``: what a GPU gives, in one command of a few minutes.

    parity     every dtype, form and pooling against the reference
    network    the network alone, step by step from transformers' to ours
    whole      ceilings of the stages, a run from start to end, how busy card and cores are
    faults     an actor killed in the middle, memory that others hold
    peers      the same photographs and weights through Ray's examples, PyTorch and transformers

Each part can run alone, and is done in a process of its own: what one leaves on the card, or dies
of, is no other's. Without a GPU everything runs on the CPU, at tiny sizes.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jobs.bench.gpu import report
from jobs.bench.subcommand import Subcommand, add_json, save, scratch_directory
from pipeline.contract.errors import ExitCode, one_line

PARTS = ("parity", "network", "whole", "faults", "peers")
Found = dict[str, Any]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        metavar="PART",
        help=f"do this part alone, may be repeated: {', '.join(PARTS)}",
    )
    add_json(parser)


def _measure(a: argparse.Namespace) -> ExitCode:
    """Do the parts, each in a process of its own, and print what they found."""
    found: Found = {}
    with scratch_directory() as scratch:
        for part in a.only or PARTS:
            found[part] = _apart(part, scratch)
            print(report.section(part, found[part]), flush=True)
            save(a, found)  # what is known so far, should a later part take too long
    return ExitCode.RUN_FAILED if report.has_failed(found) else ExitCode.OK


def _apart(part: str, scratch: Path) -> Found:
    """One part in a fresh process, as CUDA does not survive a fork; what ended it, if it failed."""
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_do, args=(part, scratch, sender))
    process.start()
    sender.close()
    rows: list[Found] = []
    try:
        while True:
            rows.append(receiver.recv())
    except EOFError:
        process.join()
    error = next((row["error"] for row in rows if "error" in row), None)
    if error is None and process.exitcode != 0:
        error = f"the process ended with {process.exitcode}"
    return {"rows": [row for row in rows if "error" not in row], "error": error}


def _do(part: str, scratch: Path, sender: Connection) -> None:
    try:
        for row in _PARTS[part](scratch):
            sender.send(row)
    except Exception as error:  # noqa: BLE001  # one part's end is not that of the others
        traceback.print_exc(file=sys.stderr)
        sender.send({"error": one_line(error)})


def _parity(scratch: Path) -> Iterable[Found]:
    from jobs.bench.gpu.parity import checks

    return (asdict(check) | {"passed": check.passed} for check in checks())


def _network(scratch: Path) -> Iterable[Found]:
    from jobs.bench.gpu.waterfall import waterfall

    return (asdict(row) for row in waterfall())


def _whole(scratch: Path) -> Iterable[Found]:
    from jobs.bench.gpu.whole import whole, write_photographs

    measured = whole(write_photographs(scratch), scratch)
    yield measured.bench.to_dict() | {
        "cores": measured.cores,
        "cards": measured.cards,
        "decode_gpu": measured.on_card and measured.on_card.to_dict()["end_to_end"],
        "no_decode_gpu": measured.why_not,
    }


def _faults(scratch: Path) -> Iterable[Found]:
    from jobs.bench.gpu.faults import held_memory, killed_actor
    from jobs.bench.gpu.whole import MODEL, write_photographs
    from jobs.bench.synthetic.models import write_model

    below = scratch / "faults"
    photographs = write_photographs(below, names=12_000)
    model = write_model(below / "model", MODEL)
    for number, fault in enumerate((killed_actor, held_memory)):
        survived = fault(photographs, model, below / f"out{number}")
        yield asdict(survived) | {"passed": survived.passed}


def _peers(scratch: Path) -> Iterable[Found]:
    from jobs.bench.contest.report import peers_table
    from jobs.bench.contest.rounds import contest, contest_device, our_contestants
    from jobs.bench.gpu.whole import DTYPE, PEERS_NAMES, run_spec, write_photographs

    below = scratch / "peers"
    photographs = write_photographs(below, names=PEERS_NAMES)
    spec = run_spec(photographs, below)
    device = contest_device(spec)
    model = Path(spec.model.source)
    results = contest(our_contestants(spec, device), photographs, model, (DTYPE,), 1, device)
    yield results.to_dict() | {"table": peers_table(results)}


_PARTS: dict[str, Callable[[Path], Iterable[Found]]] = {
    "parity": _parity,
    "network": _network,
    "whole": _whole,
    "faults": _faults,
    "peers": _peers,
}

GPU = Subcommand(
    name="gpu",
    help="what a GPU gives: right numbers, speed, whole runs, faults met",
    add_arguments=_add_arguments,
    measure=_measure,
)
