"""Every name below OUT, and below MODELS, defined once.

    OUT/
      data/run=<run_id>/part-NNNNN.parquet     rows of closed runs
      runs/<run_id>/manifest.json, report.html, classes.json, changes.parquet, review.parquet,
                      shadow.parquet, review.html
      latest.json                              the last closed run; written last
      current.json                             the files of the rows that count
      images.sql                               a view of the images that are there, for DuckDB
      images.lance/                            with --sink lance: the newest row of every image
      history/index.json, *.parquet            what the next run reads of all earlier ones at once
      corrections/columns.csv                  the header alone: no reader finds the directory empty
      corrections/<when>-<hash>.csv            what people said of images; added to, never changed
      _lease.json                              which process may write
      _open/<run_id>/open.json                 what an unfinished run is
      _open/<run_id>/parts/                    its rows, committed as soon as they are computed
      _open/<run_id>/publish/                  what is about to be published in data/ and runs/

and below MODELS, where fine-tuned models are:

    MODELS/
      models/<run_id>/config.json, model.safetensors, ...    a checkpoint, and what it came from
      latest.json                                            the newest one; written last
      _open/<run_id>/training.json                           what an unfinished fine-tuning is
      _open/<run_id>/images/                                 the images that it has read, an OUT
      _open/<run_id>/training/                               what a network in training has reached
      _open/<run_id>/model/                                  what is about to be moved to models/

All are names for ``Store``, relative to OUT or MODELS. Names that start with an underscore concern
only the run at work. What else lies there, because a desktop, a file server or a person has left
it, is nobody's business.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

DATA = "data"
RUNS = "runs"
LATEST = "latest.json"
CURRENT = "current.json"
LANCE = "images.lance"
"""LanceDB finds it as the table ``images`` when it connects to the output."""
VIEW = "images.sql"
LEASE = "_lease.json"
OPEN = "_open"
HISTORY = "history"
HISTORY_INDEX = f"{HISTORY}/index.json"
CORRECTIONS = "corrections"
CORRECTION_COLUMNS = f"{CORRECTIONS}/columns.csv"
CORRECTION_FILES = f"{CORRECTIONS}/*.csv"
"""Whatever a person puts there counts, too."""

MANIFEST = "manifest.json"
"""What ran. Its existence means that the run is closed."""
REPORT = "report.html"
CLASSES = "classes.json"
"""The names of the classes, by ``label_id``."""
CHANGES = "changes.parquet"
"""How the run differs from earlier ones, if it differs at all."""
REVIEW = "review.parquet"
"""Images that deserve a look."""
REVIEW_PAGE = "review.html"
"""The same as pictures, to correct them."""
SHADOW = "shadow.parquet"
"""Images of which a second model says something else."""
BESIDE = (REPORT, CLASSES, CHANGES, REVIEW, REVIEW_PAGE, SHADOW)
"""What may stand beside a manifest."""

MODELS = "models"
TRAINING = "training.json"
"""What a model was made of."""
METRICS = "metrics.json"
"""How good a model is on the held-out images."""
HEAD = "head.npz"
"""The classifier alone, for embeddings."""
CARD = "README.md"
PREDICTIONS = "predictions.parquet"
"""What a model says of each labelled image."""
LABEL_ISSUES = "label_issues.parquet"
"""Labels that are probably wrong."""


_DATA_FILE = re.compile(rf"{DATA}/run=[\w.-]+/[\w-][\w.-]*\.parquet", re.ASCII)
_HISTORY_HASHES = re.compile(rf"{HISTORY}/hashes-[\w.-]+\.parquet", re.ASCII)
_HISTORY_ROWS = re.compile(rf"{HISTORY}/rows-[\w.-]+\.parquet", re.ASCII)
_CORRECTION_FILE = re.compile(rf"{CORRECTIONS}/[^./][^/]*\.csv")
_RUN_ID = re.compile(r"\d+(T\d{6}Z-[0-9a-f]+)?")
_TIME = re.compile(r"(\d{8}T\d{6})Z-([0-9a-f]{5})")


def is_run_id(name: str) -> bool:
    """Whether an entry of ``RUNS`` or ``OPEN`` may be a run."""
    return _RUN_ID.fullmatch(name) is not None


def new_run_id(earlier: Iterable[str] = ()) -> str:
    """IDs sort by time, to the microsecond: the newest run of an output is the last by name.

    Where a clock was set back, or another host's is ahead, the time is a little after that of the
    last of the ``earlier`` ones.
    """
    now = max([datetime.now(UTC), *map(_after, earlier)])
    return f"{now:%Y%m%dT%H%M%SZ}-{now.microsecond:05x}{secrets.token_hex(1)}"


def _after(run_id: str) -> datetime:
    """The first moment whose IDs follow this one; long ago if it is none of ours."""
    found = _TIME.match(run_id)
    try:
        second = datetime.strptime(found[1], "%Y%m%dT%H%M%S") if found else datetime.min
        past = timedelta(microseconds=int(found[2], 16) + 1 if found else 0)
        return (second + past).replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # it only resembles one
        return datetime.min.replace(tzinfo=UTC)


def data_dir(run_id: str) -> str:
    """Where the rows of a closed run are; ``run`` is a column to readers of Hive partitions."""
    return f"{DATA}/run={run_id}"


def data_file(number: int) -> str:
    """The name of a published file within its directory."""
    return f"part-{number:05d}.parquet"


def is_data_file(name: str) -> bool:
    """Whether this may be the name of a published file, wherever it comes from: it lies below OUT,
    and nothing in it leads out again."""
    return _DATA_FILE.fullmatch(name) is not None


def run_dir(run_id: str) -> str:
    """The directory of a closed run's manifest, report and tables about itself."""
    return f"{RUNS}/{run_id}"


def manifest_file(run_id: str) -> str:
    """The manifest of a closed run."""
    return f"{run_dir(run_id)}/{MANIFEST}"


def report_file(run_id: str) -> str:
    """The report of a closed run."""
    return f"{run_dir(run_id)}/{REPORT}"


def review_page_file(run_id: str) -> str:
    """The page of a closed run's review queue; only there if it has one."""
    return f"{run_dir(run_id)}/{REVIEW_PAGE}"


def classes_file(run_id: str) -> str:
    """The class names of a closed run; only there if it labelled something."""
    return f"{run_dir(run_id)}/{CLASSES}"


def open_dir(run_id: str) -> str:
    """Where an unfinished run keeps everything."""
    return f"{OPEN}/{run_id}"


def model_dir(run_id: str) -> str:
    """A published model below MODELS, in the layout of Hugging Face."""
    return f"{MODELS}/{run_id}"


def staged_model(run_id: str) -> str:
    """A model while it is written."""
    return f"{open_dir(run_id)}/model"


def packed_images(run_id: str) -> str:
    """The images that a fine-tuning has read: an output."""
    return f"{open_dir(run_id)}/images"


def champions_answers(run_id: str) -> str:
    """What a champion with another backbone says of the images held out: an output."""
    return f"{open_dir(run_id)}/champion"


def training_dir(run_id: str) -> str:
    """Where a network that is being trained keeps what it has reached."""
    return f"{open_dir(run_id)}/training"


def training_begun(run_id: str) -> str:
    """What of a training stays as it was begun, whoever goes on with it."""
    return f"{training_dir(run_id)}/begun.json"


def open_record(run_id: str) -> str:
    """The record of an unfinished run; without it there is no such run."""
    return f"{open_dir(run_id)}/open.json"


def parts_dir(run_id: str) -> str:
    """Where an unfinished run commits its parts."""
    return f"{open_dir(run_id)}/parts"


def parts_of_attempt(run_id: str, attempt: str) -> str:
    """The prefix of the names of one attempt's parts."""
    return f"{parts_dir(run_id)}/{attempt}-"


def part_file(run_id: str, attempt: str, wave: int, number: int) -> str:
    """A part, by the number of the write task within its wave."""
    return f"{parts_of_attempt(run_id, attempt)}{wave:03d}-{number:06d}.parquet"


def kept_part(run_id: str, attempt: str, number: int) -> str:
    """What an attempt has left of a part, by its number among those that it took over."""
    return f"{parts_dir(run_id)}/kept-{attempt}-{number:06d}.parquet"


def vanished_part(run_id: str, number: int) -> str:
    """Rows of vanished images on their way into the merged files; no attempt takes them over."""
    return f"{parts_dir(run_id)}/vanished-{number:06d}.parquet"


def publish_dir(run_id: str) -> str:
    """What is about to be published, under its future names in ``run_dir``."""
    return f"{open_dir(run_id)}/publish"


def publish_manifest(run_id: str) -> str:
    """The manifest before it moves to ``manifest_file``."""
    return f"{publish_dir(run_id)}/{MANIFEST}"


def publish_uploads(run_id: str) -> str:
    """Which merged files are in their place already, and what makes them visible."""
    return f"{publish_dir(run_id)}/uploads.json"


def publish_data_dir(run_id: str, attempt: str) -> str:
    """The merged files that become ``data_dir``, if it is this attempt that closes the run."""
    return f"{publish_dir(run_id)}/data/{attempt}".rstrip("/")


def history_rows(run_id: str, number: int) -> str:
    """Rows of closed runs that are kept together, by the run that closed last."""
    return f"{HISTORY}/rows-{run_id}-{number}.parquet"


def is_history_rows(name: str) -> bool:
    """Whether this may be such a name, wherever it comes from."""
    return _HISTORY_ROWS.fullmatch(name) is not None


def correction_file(when: str, digest: str) -> str:
    """A file of corrections, by when it was added and the hash of what it says."""
    return f"{CORRECTIONS}/{when}-{digest}.csv"


def is_correction_file(name: str) -> bool:
    """Whether this file holds corrections; it may have been put there by hand."""
    return name != CORRECTION_COLUMNS and _CORRECTION_FILE.fullmatch(name) is not None


def history_hashes(data_file: str) -> str:
    """The hashes of the rows of a data file, as ``data/run=<run_id>/part-NNNNN.parquet``."""
    return f"{HISTORY}/hashes-{data_file.removeprefix(f'{DATA}/run=').replace('/', '-')}"


def is_history_file(name: str) -> bool:
    """Whether this may be one of the names that closings write there, except that of the index."""
    return is_history_rows(name) or _HISTORY_HASHES.fullmatch(name) is not None
