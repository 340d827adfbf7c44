"""``OUT/images.lance``: the newest row of every image as a Lance dataset, for vector search.

The dataset follows the ledger. It remembers the last run whose rows it has, in its own config, and
an update applies the closed runs after that one, oldest first: the newest ``--full`` run rewrites
it, all others replace rows by URI and add what is new. Both can be repeated, so the next update
makes up for one that was killed, or skipped for some runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.manifest import Manifest
from pipeline.contract.schema import Status
from pipeline.contract.spec import Sink
from pipeline.output.ledger.history import History
from pipeline.storage.objects.s3.access import access
from pipeline.storage.store import Store
from pipeline.storage.uris import join_uri

if TYPE_CHECKING:
    from lance import LanceDataset

APPLIED = "cvt.run_id"
"""Key in the dataset's config: the newest run whose rows it has."""

PROTOCOLS = ("file", "s3", "gs", "az")
BATCH_ROWS = 4096
_OPTIONS = {"AWS_ENDPOINT_URL_S3": "aws_endpoint", "AWS_DEFAULT_REGION": "aws_region"}

log = logging.getLogger(__name__)


def check(sink: Sink, store: Store) -> None:
    """Refuse in advance what ``update`` could not do.

    Raises:
        UsageError: the extra is not installed, or Lance does not know the storage.
    """
    if sink != "lance":
        return
    if find_spec("lance") is None:
        raise UsageError("<output.sink> lance needs a package: pip install pylance")
    if store.protocol != "file" and (odd := set("#%?") & set(store.uri)):
        raise UsageError(
            f"<output.sink> lance does not take {' '.join(sorted(odd))} literally in the URI of an "
            "object store; choose another <output.uri>"
        )
    if store.protocol not in PROTOCOLS:
        raise UsageError(
            f"<output.sink> lance cannot write to {store.protocol}:// URIs; "
            "choose an <output.uri> on a local disk, s3://, gs:// or az://"
        )


def update(sink: Sink, store: Store) -> None:
    """Bring the dataset up to date with the closed runs; without the sink, warn that it is not.

    Raises:
        RunError: the storage failed; the same call does the rest.
    """
    if sink == "lance":
        try:
            _Follower(store).update()
        except (OSError, ValueError, RuntimeError) as error:  # everything that Lance raises
            raise RunError(
                f"the run is published, but not in {store.locate(layout.LANCE)}: "
                f"{one_line(error)}; start the same command again"
            ) from error
    elif _exists(store):
        log.warning("%s is not updated without <output.sink> lance", store.locate(layout.LANCE))


class _Follower:
    """The dataset of an output, and what it lacks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.where: dict[str, Any] = {
            "uri": join_uri(store.protocol, store.path(layout.LANCE)),
            "storage_options": _storage_options(store),
        }

    def update(self) -> None:
        live = [run for run in reversed(History.load(self.store).runs) if run.file_names]
        dataset = self._open()
        applied = dataset.config().get(APPLIED, "") if dataset else ""
        todo = [run for run in live if not _has(applied, run)]
        if not todo:
            return
        if dataset is None or todo == live:
            dataset = self._write(todo.pop(0), "overwrite" if dataset else "create")
        for run in todo:
            self._merge(run, dataset)
        dataset.delete(f"status = '{Status.VANISHED.value}'")
        dataset.update_config({APPLIED: live[-1].run_id})
        log.info("%s: %d images", self.store.locate(layout.LANCE), dataset.count_rows())

    def _open(self) -> LanceDataset | None:
        import lance

        return lance.dataset(**self.where) if _exists(self.store) else None

    def _write(self, run: Manifest, mode: str) -> LanceDataset:
        import lance

        return lance.write_dataset(self._reader(run.file_names), mode=mode, **self.where)

    def _merge(self, run: Manifest, dataset: LanceDataset) -> None:
        """Upsert by URI, file by file, because Lance joins in memory."""
        for name in run.file_names:
            upsert = dataset.merge_insert("uri").conflict_retries(0)  # retries keep a copy
            upsert.when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(self._reader([name]))

    def _reader(self, names: list[str]) -> pa.RecordBatchReader:
        with self.store.fs.open(self.store.path(names[0])) as file:
            schema = pq.read_schema(file).remove_metadata()
        return pa.RecordBatchReader.from_batches(schema, self._batches(names, schema))

    def _batches(self, names: list[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for name in names:
            with self.store.fs.open(self.store.path(name)) as file:
                for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
                    yield batch.replace_schema_metadata(schema.metadata)


def _has(applied: str, run: Manifest) -> bool:
    """Whether a dataset with the rows of the run ``applied``, and earlier ones, has those of a run;
    a compaction has none of its own."""
    newest = run.source_runs[0] if run.compacted is not None and run.source_runs else run.run_id
    return newest <= applied


def _exists(store: Store) -> bool:
    return bool(store.list(f"{layout.LANCE}/_versions"))


def _storage_options(store: Store) -> dict[str, str]:
    """Where S3 is, and the keys of a profile; Lance finds the rest in the environment or through
    the machine's role."""
    if store.protocol != "s3":
        return {}
    settings = access().settings()
    options = {_OPTIONS.get(name, name.lower()): value for name, value in settings.items()}
    return options | {"allow_http": str(options.get("aws_endpoint", "")[:5] == "http:").lower()}
