"""The jobs as functions of Python: what ``cvt-classify`` and the other commands do.

A call that was interrupted is continued by the same call; after one that closed, the next computes
only what is new or changed. A Ray that is initialised is used and left as it was; otherwise each
call starts one of its own and ends it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract.spec import (
    DEFAULT_TOP_K,
    SECTIONS,
    SETTINGS,
    CorrectionsSpec,
    FinetuneSpec,
    RelabelSpec,
    RunSpec,
    settings,
)
from pipeline.runs.python.config import read_config, spec_from_config
from pipeline.runs.python.keywords import Keywords, Place, fields, flat, run_spec
from pipeline.runs.python.shown import as_in_python, import_ray

if TYPE_CHECKING:
    from pipeline.output.corrections.overview import Overview
    from pipeline.runs.finetune.result import FinetuneResult
    from pipeline.runs.python.result import Result
    from pipeline.runs.result import RunResult

_TOP_K = replace(SETTINGS["output.top_k"], default=DEFAULT_TOP_K)
_RUN = Keywords((SETTINGS | {_TOP_K.place: _TOP_K}).values())
_EMBED = Keywords(one for one in SETTINGS.values() if one.place != "output.embeddings")
_RELABEL = Keywords(settings(RelabelSpec, "relabel"))
_CORRECTIONS = Keywords(settings(CorrectionsSpec, "corrections"))
_FINETUNE = Keywords(settings(FinetuneSpec, "finetune"))

log = logging.getLogger(__name__)


@_RUN.listed
def classify(
    inputs: Place | Iterable[Place],
    *more: Place | Iterable[Place],
    model: Place,
    output: Place,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Label every image: the best ``top_k`` classes with their scores, and embeddings in the same
    pass with ``with_embeddings=True``.

    Args:
        inputs: a path or URI, or several: directory, glob, image, tar, Parquet file, list.
        model: a checkpoint: directory, file, URI or hub name.
        output: a directory or URI for the results; what it holds already is not done again.
        progress: whether to show how far the run is; otherwise the log alone says so, at INFO.
        settings: any other setting, called as its flag or its field in a nightly file.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run could not finish; the same call continues it.
    """
    with as_in_python(_RUN.spell, progress=progress):
        found = _RUN.values(settings | _ends(inputs, more, model, output))
        found.setdefault("output.top_k", DEFAULT_TOP_K)
        return _result(run_spec(found))


@_EMBED.listed
def embed(
    inputs: Place | Iterable[Place],
    *more: Place | Iterable[Place],
    model: Place,
    output: Place,
    with_labels: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Turn every image into an embedding, and label it in the same pass with ``with_labels=True``
    or with a ``top_k``.

    Args:
        inputs: a path or URI, or several: directory, glob, image, tar, Parquet file, list.
        model: a checkpoint: directory, file, URI or hub name.
        output: a directory or URI for the results; what it holds already is not done again.
        with_labels: whether to write labels, too.
        progress: whether to show how far the run is; otherwise the log alone says so, at INFO.
        settings: any other setting, called as its flag or its field in a nightly file.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run could not finish; the same call continues it.
    """
    with as_in_python(_EMBED.spell, progress=progress):
        found = _EMBED.values(settings | _ends(inputs, more, model, output))
        found["output.embeddings"] = True
        if with_labels:
            found.setdefault("output.top_k", DEFAULT_TOP_K)
        return _result(run_spec(found))


def nightly(
    config: Place | Mapping[str, Any], *, progress: bool = False, **settings: Any
) -> Result:
    """Do what a nightly file describes, over only what is new or changed.

    Args:
        config: the YAML file, or what it would hold: a mapping of its sections.
        progress: whether to show how far the run is; otherwise the log alone says so, at INFO.
        settings: what is to be otherwise than in the file.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run could not finish; the same call continues it.
    """
    with as_in_python(_RUN.spell, progress=progress):
        if isinstance(config, Mapping):
            described = spec_from_config(config, "the configuration")
        else:
            described = spec_from_config(read_config(Path(config)), str(config))
        found = _RUN.values(settings)
        parts = {
            name: replace(getattr(described, name), **fields(found, name)) for name in SECTIONS
        }
        return _result(replace(described, **parts))


def run(spec: RunSpec, *, progress: bool = False) -> Result:
    """Do what a spec asks for and that is not done yet.

    Args:
        progress: whether to show how far the run is; otherwise the log alone says so, at INFO.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run could not finish; the same call continues it.
    """
    with as_in_python(str, progress=progress):
        return _result(spec)


@_RELABEL.listed
def relabel(source: Place, *, output: Place, progress: bool = False, **settings: Any) -> Result:
    """Relabel the output of an earlier job, without a network: other names, thresholds, or another
    linear head. A second call relabels only rows that are new or changed.

    Args:
        source: the output of an earlier job, which stays as it is.
        output: a directory or URI for the new table.
        progress: whether to show the log; otherwise it goes where the program sends it.
        settings: what to relabel with, called as the flags of ``cvt-relabel``.

    Raises:
        UsageError: nothing was written; the message says what to change.
        RunError: it could not finish; the same call does it again.
    """
    with as_in_python(_RELABEL.spell, progress=progress):
        found = _RELABEL.values(settings | {"source": source, "output": output})
        return _relabelled(RelabelSpec(**_by_field(_RELABEL, found)))


@_FINETUNE.listed
def finetune(
    outputs: Place | Iterable[Place],
    *more: Place | Iterable[Place],
    model: Place,
    output: Place,
    progress: bool = False,
    **settings: Any,
) -> FinetuneResult:
    """Train a classifier on labels of your own, from images or from embeddings that outputs store.

    Args:
        outputs: images, as ``classify`` takes them, or outputs with embeddings.
        model: the checkpoint to start from; of outputs, the one that computed the embeddings.
        output: a directory or URI for the models.
        progress: whether to show the log; otherwise it goes where the program sends it.
        settings: whose labels, and how to learn, called as the flags of ``cvt-finetune``.

    Raises:
        UsageError: nothing was written; the message says what to change.
        RunError: it could not finish; the same call continues it.
    """
    with as_in_python(_FINETUNE.spell, progress=progress):
        given = {"outputs": flat([outputs, *more]), "model": model, "output": output}
        spec = FinetuneSpec(**_by_field(_FINETUNE, _FINETUNE.values(settings | given)))
        from pipeline.runs.finetune.job import finetune  # which imports torch

        found = finetune(spec)
        if found.complaint:
            log.warning("%s", found.complaint)
        return found


def corrections(output: Place, *, add: Place | Iterable[Place] = ()) -> Overview:
    """What people said of the images of an output: how many, how often the model is right by the
    random sample, and what it confuses.

    Args:
        output: of an earlier job.
        add: files of corrections to be added to it first; the same file twice is there once.

    Raises:
        UsageError: a file cannot be read, or is of other images; nothing was added.
        RunError: the storage failed; the same call adds the rest.
    """
    with as_in_python(_CORRECTIONS.spell, progress=False):
        spec = CorrectionsSpec(output=str(output), add=tuple(map(str, flat([add]))))
        from pipeline.output.corrections.adding import add_files, output_at
        from pipeline.output.corrections.collected import load
        from pipeline.output.corrections.overview import Overview

        store = output_at(spec.output)
        if spec.add:
            add_files(store, spec.add, datetime.now(UTC))
        return Overview.of(load(store))


def _by_field(keywords: Keywords, found: Mapping[str, Any]) -> dict[str, Any]:
    """Values of settings, by the fields of their spec."""
    named = keywords.settings.items()
    return {one.name: found[place] for place, one in named if place in found}


def _ends(
    inputs: Place | Iterable[Place],
    more: Iterable[Place | Iterable[Place]],
    model: Place,
    output: Place,
) -> dict[str, Any]:
    """Where a run begins and ends, by keyword."""
    return {"inputs": flat([inputs, *more]), "model": model, "output": output}


def _result(spec: RunSpec) -> Result:
    def closed() -> RunResult:
        from pipeline.runs.run import run

        return run(spec)

    return _carried_out(closed)


def _relabelled(spec: RelabelSpec) -> Result:
    def closed() -> RunResult:
        from pipeline.runs.relabel.job import relabel

        return relabel(spec)

    return _carried_out(closed)


def _carried_out(job: Callable[[], RunResult]) -> Result:
    """What a job returns, for Python; the jobs import torch and Ray, which a wrong keyword need
    not wait for."""
    if "ray" not in sys.modules:
        log.info("starting: PyTorch and Ray take some seconds ...")
        import_ray()
    closed = job()
    from pipeline.runs.python.result import Result

    if closed.complaint:
        log.warning("%s", closed.complaint)
    return Result(closed.store, closed.manifest, closed.policy, closed.interrupted)
