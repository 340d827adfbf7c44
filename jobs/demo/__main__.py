"""Run the main job on the demo bucket and say how many labels are right."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import pyarrow.dataset as ds

from jobs.cli import command
from jobs.cli.summary import summarize
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, PolicySpec, RunSpec
from pipeline.runs.result import RunResult
from pipeline.runs.run import run

HERE = Path(__file__).resolve().parent
BUCKET = HERE / "bucket"


def build_parser() -> argparse.ArgumentParser:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__)
    parser.add_argument("--output", default="demo-output", metavar="OUT")
    parser.add_argument("--debug", action="store_true")
    return parser


def spec(output: str) -> RunSpec:
    """Labels and embeddings of the whole bucket; every demo run does everything again."""
    return RunSpec(
        inputs=InputSpec(uris=(str(BUCKET),)),
        model=ModelSpec(source=str(HERE / "model")),
        output=OutputSpec(uri=output, top_k=5, embeddings=True),
        policy=PolicySpec(full=True, discard_open_run=True),
    )


def accuracy(result: RunResult) -> tuple[int, int]:
    """``(right, labelled)`` over the images whose true label is in labels.csv."""
    with (BUCKET / "labels.csv").open() as file:
        truth = {str(BUCKET / row["uri_suffix"]): row["label"] for row in csv.DictReader(file)}
    table = ds.dataset(result.data_uri).to_table(columns=["uri", "label"])
    labelled = [row for row in table.to_pylist() if row["uri"] in truth]
    return sum(row["label"] == truth[row["uri"]] for row in labelled), len(labelled)


def job(arguments: argparse.Namespace) -> ExitCode:
    """Run, then compare with the truth."""
    result = run(spec(arguments.output), debug=arguments.debug)
    code = summarize(result)
    right, labelled = accuracy(result)
    print(f"accuracy on the labelled images: {right / labelled:.1%} ({right} of {labelled})")
    return code


def main() -> int:
    """Entry point of ``python -m jobs.demo``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
