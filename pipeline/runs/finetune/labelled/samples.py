"""The labelled images of an output: their embeddings, and what is not there to be trained on.

Rows are streamed; what stays in memory is the labels, and the embeddings of labelled images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import Status
from pipeline.model.network import TrainableCheckpoint
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRun
from pipeline.runs.finetune.labelled.kinds import EXAMPLES, examples
from pipeline.runs.finetune.labelled.labels import Labels
from pipeline.runs.relabel.computed import sees_alike
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.relabel.source import check_embeddings, load_source
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

_ROWS = 8192
"""Read at a time."""
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """Labelled images with embeddings, in order of URI."""

    uris: list[str]
    contents: list[str]
    """SHA-256 of the files; the URI where that is not known."""
    groups: list[str | None]
    """What ``split_by`` says; empty without it."""
    labels: list[str]
    vectors: Vectors
    """(R, C); of no width if they were not asked for."""
    failed: int
    """Images with a label that failed in the output."""
    unlabelled: int
    """Images without a label."""
    unmatched: list[str]
    """What files of labels name, and the output has no image of."""
    given: list[bool] = field(default_factory=list)
    """(R,): which images a file says are held out; empty if no file says it."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Images of each label that is not trained on."""

    def __len__(self) -> int:
        return len(self.uris)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that is learned from."""
        digest = hashlib.sha256(self.vectors.tobytes())
        groups = self.groups or [None] * len(self)
        for row in zip(self.uris, self.contents, groups, self.labels, strict=True):
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
        digest.update(bytes(self.given))
        return digest.hexdigest()


@dataclass
class _Gathering:
    """What has been read so far."""

    rows: list[tuple[str, str, str | None, str, bool]] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """What files of labels name, and is an image."""
    taken: set[str] = field(default_factory=set)
    """URIs of the rows, of which several outputs may have the same."""
    failed: int = 0
    unlabelled: int = 0
    ignored: Counter[str] = field(default_factory=Counter)


def gather(
    sources: Sequence[History],
    labels: Labels,
    split_by: str | None,
    *,
    vectors: bool,
    seen: Iterable[str] = (),
) -> Samples:
    """The labelled images of outputs; where several have an image, the first one counts.

    Args:
        vectors: whether to read the embeddings, too.
        seen: what files of labels name, and was found before these outputs were written.

    Raises:
        UsageError: no image has a label, or most labels have no image.
    """
    found = _Gathering(seen=set(seen), ignored=Counter(dict.fromkeys(labels.ignored, 0)))
    for source in sources:
        for table in _tables(source, labels, split_by, vectors=vectors):
            _add(found, table, labels, split_by)
    unmatched = sorted(labels.named.keys() - found.seen)
    check_matches(labels, unmatched, "output")
    if not found.rows:
        raise UsageError(
            f"no image of {sources[0].store.uri} has both a label and an embedding "
            f"({found.unlabelled} without a label, {found.failed} failed)"
        )
    order = sorted(range(len(found.rows)), key=lambda row: found.rows[row][0])
    uris, contents, groups, names, given = zip(*(found.rows[row] for row in order), strict=True)
    return Samples(
        uris=list(uris),
        contents=list(contents),
        groups=list(groups) if split_by else [],
        labels=list(names),
        vectors=_joined(found.vectors, order),
        failed=found.failed,
        unlabelled=found.unlabelled,
        unmatched=unmatched,
        given=list(given) if labels.held_out else [],
        ignored=found.ignored,
    )


def _tables(
    source: History, labels: Labels, split_by: str | None, *, vectors: bool
) -> Iterator[pa.Table]:
    asked = [labels.column, split_by, "embedding" if vectors else None]
    columns = ["uri", "status", "sha256", *(name for name in asked if name is not None)]
    return LiveRows.of(source).batches(_ROWS, list(dict.fromkeys(columns)))


def _add(found: _Gathering, table: pa.Table, labels: Labels, split_by: str | None) -> None:
    """Take up the rows of a table that have a label."""
    uris, status, contents = (table[name].to_pylist() for name in ("uri", "status", "sha256"))
    values = table[labels.column].to_pylist() if labels.column else [None] * len(uris)
    groups = table[split_by].to_pylist() if split_by else [None] * len(uris)
    chosen = []
    for row, uri in enumerate(uris):
        found.seen |= labels.keys_of(uri)
        label = labels.of(uri, values[row])
        if label is None:
            found.unlabelled += 1
        elif (ignored := labels.left_out(label)) is not None:
            found.ignored[ignored] += 1
        elif status[row] != Status.OK.value:
            found.failed += 1
        elif uri not in found.taken:
            found.taken.add(uri)
            group = None if groups[row] is None else str(groups[row])
            content = contents[row] or uri
            found.rows.append((uri, content, group, label, labels.is_held_out(uri)))
            chosen.append(row)
    if "embedding" in table.column_names and chosen:
        column = table["embedding"].take(pa.array(chosen)).combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        found.vectors.append(flat.reshape(len(chosen), -1).astype(np.float32))


def _joined(parts: list[Vectors], order: list[int]) -> Vectors:
    """All vectors in another order, freeing the parts on the way."""
    if not parts:
        return np.zeros((len(order), 0), np.float32)
    whole = np.concatenate(parts)
    parts.clear()
    return whole[order]


def check_matches(labels: Labels, unmatched: list[str], where: str) -> None:
    """Refuse files of labels that are for the most part of other images.

    Raises:
        UsageError: more than half of the labels have no image ``where`` they were looked for.
    """
    lost = [name for name in unmatched if name in labels.held_out]
    if 2 * len(lost) > len(labels.held_out):
        raise UsageError(
            f"{len(lost)} of {len(labels.held_out)} images of <finetune.val_labels> are not in the "
            f"{where}, {examples(lost)}; images that are held out must be there, too"
        )
    total = len(labels.named)
    if 2 * len(unmatched) > total:
        raise UsageError(
            f"{len(unmatched)} of {total} labels in {', '.join(labels.files[:EXAMPLES])} have no "
            f"image in the {where}, {examples(unmatched)}; a uri must be as it is there"
        )


def embedded(uri: str) -> History:
    """An output with embeddings that a classifier takes.

    Raises:
        UsageError: it is none.
    """
    try:
        source = load_source(uri, "fine-tuning")
    except UsageError as error:
        raise UsageError(
            f"{error.args[0]}; fine-tuning starts from the embeddings that cvt-classify or "
            "cvt-embed has stored, or from images"
        ) from error
    check_embeddings(source, "fine-tuning")
    return source


def is_output(uri: str) -> bool:
    """Whether runs are there: an unfinished one has files that are not images, either."""
    try:
        store = Store(canonical(uri))
        return bool(History.load(store).runs) or OpenRun.find(store) is not None
    except (*STORAGE_ERRORS, UsageError, ValueError):  # a list, a glob, a URL
        return False


def check_kept(sources: list[History], name: str, column: str | None) -> None:
    """Refuse a column that an output does not have, or that a model has written.

    Raises:
        UsageError: it is one.
    """
    for source in sources:
        kept = source.runs[0].identity.kept or {}
        if column is not None and column not in kept:
            has = ", ".join(sorted(kept)) or "none"
            raise UsageError(
                f"<finetune.{name}> is {column!r}, which is no column that {source.store.uri} "
                f"carries along from its input; it has {has} (<inputs.keep>)"
            )


def check_parent(source: History, name: str, parent: TrainableCheckpoint) -> None:
    """Refuse a checkpoint that has not computed the embeddings.

    Raises:
        UsageError: it is another one, or has other settings.
    """
    run = source.runs[0]
    theirs, run_model = run.identity, run.model.model
    if theirs.weights_sha256 != parent.weights_sha256:
        raise UsageError(
            f"the embeddings of {source.store.uri} are those of {run_model} (weights "
            f"{theirs.weights_sha256[:12]}), not of <model.source> {name} (weights "
            f"{parent.weights_sha256[:12]}); name that one"
        )
    if not sees_alike(parent, theirs):
        raise UsageError(
            f"the embeddings of {source.store.uri} were computed with other settings than those "
            "of <model.source>; give the same <model.activation> and <model.image_size>"
        )
