"""Teach a model of eight classes two more from fifty labels of each, and let its table follow.

Four steps, each of which has a command of its own: label and embed the images with the base
(cvt-classify), learn ten classes from the embeddings (cvt-finetune), relabel the table
(cvt-relabel), run the next night with the new model, which finds nothing to compute.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs.cli import command
from jobs.demo.finetune.build import LABEL, VAL_SHARE
from pipeline.contract import layout
from pipeline.contract.errors import ExitCode
from pipeline.contract.spec import (
    FinetuneSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RelabelSpec,
    RunSpec,
)
from pipeline.runs.finetune.job import finetune
from pipeline.runs.finetune.result import FinetuneResult
from pipeline.runs.relabel.job import relabel
from pipeline.runs.result import RunResult
from pipeline.runs.run import run

HERE = Path(__file__).resolve().parent
LESSONS, BASE = HERE / "lessons.parquet", HERE / "base"


@dataclass(frozen=True)
class Places:
    """Where the demo writes."""

    root: Path

    @property
    def labelled(self) -> str:
        """By the base."""
        return str(self.root / "base")

    @property
    def models(self) -> str:
        return str(self.root / "models")

    @property
    def relabelled(self) -> str:
        """By the new model."""
        return str(self.root / "relabelled")


def build_parser() -> argparse.ArgumentParser:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.finetune", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-finetune"), metavar="DIR")
    parser.add_argument("--debug", action="store_true")
    return parser


def night(output: str, model: str, policy: PolicySpec) -> RunSpec:
    """Labels and embeddings of all lessons, whose true labels are carried along."""
    return RunSpec(
        inputs=InputSpec(uris=(str(LESSONS),), keep=(LABEL,)),
        model=ModelSpec(source=model),
        output=OutputSpec(uri=output, top_k=5, embeddings=True),
        policy=policy,
    )


def learn(places: Places) -> FinetuneResult:
    """A classifier of ten classes on the embeddings of the base, held against the base."""
    spec = FinetuneSpec(
        outputs=(places.labelled,),
        output=places.models,
        model=str(BASE),
        label_column=LABEL,
        val_share=VAL_SHARE,
        champion=str(BASE),
    )
    return finetune(spec)


def held_out(labelled: RunResult, learned: FinetuneResult) -> pa.Table:
    """uri, true label, and what the base and the new model say, of the images held out."""
    told = pq.read_table(f"{learned.model_uri}/{layout.PREDICTIONS}")
    told = told.filter(pc.equal(told["split"], "validation"))
    base = ds.dataset(labelled.data_uri).to_table(columns=["uri", "label"])
    before = base.rename_columns(["uri", "before"])
    return told.select(["uri", "label", "predicted"]).join(before, "uri", join_type="left outer")


def compared(rows: pa.Table) -> Iterator[str]:
    """Accuracy before and after, of all classes and of those that the base cannot name."""
    images, before, after = (Counter[str]() for _ in range(3))
    for row in rows.to_pylist():
        images[row["label"]] += 1
        before[row["label"]] += row["label"] == row["before"]
        after[row["label"]] += row["label"] == row["predicted"]
    whole = images.total()
    yield (
        f"accuracy on the {whole} images held out: {before.total() / whole:.1%} before, "
        f"{after.total() / whole:.1%} after"
    )
    yield from (
        f"  {name}, which the base cannot name: {before[name]} of {images[name]} right before, "
        f"{after[name]} after"
        for name in images
        if not before[name]
    )


def job(arguments: argparse.Namespace) -> ExitCode:
    """Take the four steps and say what each has done."""
    places = Places(arguments.output)
    again = PolicySpec(full=True, discard_open_run=True)
    labelled = run(night(places.labelled, str(BASE), again), debug=arguments.debug)
    print(f"1. {labelled.counts.ok} images of ten classes labelled by a model of eight")
    learned = learn(places)
    counted: Mapping[str, int] = learned.metrics["images"]
    print(f"2. ten classes learned from {counted['train']} labels and the embeddings of step 1")
    print("\n".join(compared(held_out(labelled, learned))))
    relabel(RelabelSpec(source=places.labelled, output=places.relabelled, model=places.models))
    print(f"3. the table relabelled: {places.relabelled}")
    after = run(night(places.relabelled, places.models, PolicySpec()), debug=arguments.debug)
    print(f"4. the next night: {after.counts.skipped} images unchanged, {after.counts.ok} computed")
    print(f"model:  {learned.model_uri}")
    print(f"report: {learned.report_uri}")
    print(f"review: {labelled.review_uri}, to correct what the base was unsure of")
    return learned.exit_code


def main() -> int:
    """Entry point of ``python -m jobs.demo.finetune``."""
    return command.main(job, build_parser())


if __name__ == "__main__":
    sys.exit(main())
