"""Closed runs without any computing: tables of given rows, published as a job publishes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.manifest import Counts, Manifest
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import result_schema
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import merge
from pipeline.output.open_run import OpenRun, Part, PartFooter
from pipeline.output.publish import publish, seal
from pipeline.runs import closing
from pipeline.runs.closing import Account
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import Row, table_of

IDENTITY = Identity(fingerprint="f00d", pooling="cls_norm", scores="softmax", top_k=5)
BARE = Identity(fingerprint="f1", top_k=5, preprocessing={"size": 224, "crop_pct": 0.875})
"""Of runs for which nothing was computed."""


def rows_of(
    scores: npt.NDArray[np.float32],
    classes: Sequence[str],
    *,
    top_k: int = 5,
    embeddings: npt.NDArray[np.float32] | None = None,
    failures: Sequence[str] = (),
    prefix: str = "image",
) -> pa.Table:
    """Result rows of scores (B, N), best first, and one failed row for each error code."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    rows: list[dict[str, Any]] = [
        {
            "uri": f"s3://bucket/{prefix}{number:06d}.jpg",
            "status": "ok",
            "source_version": "A",
            "sha256": f"{prefix}{number}",
            "label_id": int(ids[0]),
            "label": classes[ids[0]],
            "score": scores[number, ids[0]],
            "topk_ids": ids.tolist(),
            "topk_labels": [classes[i] for i in ids],
            "topk_scores": scores[number, ids].tolist(),
        }
        for number, ids in enumerate(order)
    ]
    if embeddings is not None:
        for row, vector in zip(rows, embeddings, strict=True):
            row["embedding"] = vector.tolist()
    rows += [
        {
            "uri": f"s3://bucket/{prefix}-bad{number:06d}.jpg",
            "status": "failed",
            "source_version": "A",
            "error_code": code,
            "error_message": f"it is {code}",
        }
        for number, code in enumerate(failures)
    ]
    width = None if embeddings is None else pa.list_(pa.float32(), embeddings.shape[1])
    schema = result_schema(labels=True, thresholds=False, embedding=width)
    return pa.Table.from_pylist(rows, schema=schema)


def close_run(
    store: Store,
    rows: pa.Table,
    classes: Sequence[str],
    *,
    identity: Identity = IDENTITY,
    rows_per_part: int = 100,
    full: bool = False,
    review: int = 50,
    expected: int | None = None,
) -> Manifest:
    """Publish rows as a closed run; ``expected`` if they are not all of images that are there."""
    # By number, for tests to name them; after a run that got its id as real ones do, like that.
    earlier = list(store.children("runs"))
    are_numbers = all(len(run_id) == 8 for run_id in earlier)
    run = OpenRun(store, f"{len(earlier):08d}" if are_numbers else layout.new_run_id(earlier))
    run.save()
    for start in range(0, rows.num_rows, rows_per_part):
        part = rows.slice(start, rows_per_part)
        name = run.part_name(start)
        write_table(store, name, part)
        run.parts.append(Part(name, part.num_rows, PartFooter()))
    account = Account(
        expected=rows.num_rows if expected is None else expected,
        skipped=0,
        model=Provenance(model="a model", weights_sha256="0" * 64, fingerprint="f00d"),
        identity=identity,
        classes=classes,
        spec={"policy": {"full": full}},
        review=review,
    )
    return closing.close_run(run, History.load(store).nights, account)


def closed(
    store: Store,
    run_id: str,
    rows: list[Row],
    *,
    full: bool = False,
    identity: Identity = BARE,
    inputs: tuple[str, ...] = (),
) -> None:
    """A published run; nothing was computed for it."""
    open_run = OpenRun(store, run_id)
    open_run.save()
    if rows:
        write_table(store, open_run.part_name(0), table_of(rows))
        open_run.parts.append(Part(open_run.part_name(0), len(rows), PartFooter()))
    tally = merge(open_run, {}, None)
    manifest = Manifest(
        run_id=run_id,
        identity=identity,
        spec={"policy": {"full": full}, "inputs": {"uris": list(inputs)}},
        files=tuple(tally.files),
        counts=Counts(listed=len(rows), ok=tally.ok, failed=tally.failed),
    )
    seal(open_run, manifest, "")
    publish(open_run)
