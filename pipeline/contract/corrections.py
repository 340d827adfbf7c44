"""What people say of images that a run has labelled: the columns of ``corrections.csv``.

The review page writes this file, ``OUT/corrections/`` collects it, training and relabelling read
it. It is CSV in UTF-8 with a header. A file made by hand needs the columns ``uri`` and ``label``
alone; columns of other names are left aside. The newest decision about an image counts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, get_args

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.layout import is_run_id

Verdict = Literal["label", "none", "bad_picture"]
"""``label``: the image is of the class in the column ``label``, which may be the proposed one.
``none``: of none of the classes. ``bad_picture``: not usable."""
Queue = Literal["uncertain", "unlike", "threshold", "random"]
"""Why an image was shown. Only what the queue ``random`` says holds for all images."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
QUEUES: tuple[Queue, ...] = get_args(Queue)
COLUMNS = ("uri", "label", "verdict", "queue", "proposed", "score", "run_id", "who", "when")
NEEDED = ("uri", "label")
MOST_CHARACTERS = 100_000
"""Of a cell; what a text has that begins with a quotation mark and never ends."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """One decision about one image."""

    uri: str
    """As in the row of the image."""
    label: str = ""
    """The class; empty unless ``verdict`` is ``label``."""
    verdict: Verdict = "label"
    queue: Queue | None = None
    proposed: str = ""
    """What the run said: ``label_1``."""
    score: float | None = None
    """How sure it was: ``score_1``."""
    run_id: str = ""
    """The run that proposed it."""
    who: str = ""
    when: str = ""
    """When it was decided, as ``moment`` writes it, so that texts follow each other as times do;
    empty if nobody has said when."""


def moment(time: datetime) -> str:
    """A time as the column ``when`` has it: UTC, in milliseconds.

    >>> moment(datetime(2026, 11, 27, 4, 5, tzinfo=UTC))
    '2026-11-27T04:05:00.000Z'
    """
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_corrections(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is one of corrections, and no mere list of labels."""
    return {*NEEDED, "verdict"} <= set(columns)


def newest(corrections: Iterable[Correction]) -> dict[str, Correction]:
    """The decision that counts for each image, by URI: the latest, of equally late ones the last.
    One without a time is earlier than any with one."""
    found: dict[str, Correction] = {}
    for one in corrections:
        if one.uri not in found or found[one.uri].when <= one.when:
            found[one.uri] = one
    return found


def write_corrections(corrections: Iterable[Correction]) -> bytes:
    """The file, with all columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in corrections:
        values = [getattr(one, name) for name in COLUMNS]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue().encode()


def read_corrections(data: bytes, name: str) -> list[Correction]:
    """The decisions in a file, in its order; rows without a label and a verdict say nothing.

    Raises:
        UsageError: the file is not whole, or holds what no reviewer would say; the message names
            the line and the cause, and ``name`` as the file.
    """
    try:
        rows = _rows(data)
        header = _header(next(rows, (1, []))[1])
        return list(_decisions(rows, header))
    except ValueError as error:
        raise UsageError(
            f"{name}: {one_line(error)}; corrections are CSV in UTF-8 with the columns "
            f"{', '.join(COLUMNS)}, of which {' and '.join(NEEDED)} are needed"
        ) from error


def correction_from(values: Mapping[str, Any]) -> Correction | None:
    """The decision in a row, by column: texts, empty or missing where nothing is said.

    Raises:
        ValueError: nobody would say that; the message has the column and the value.
    """
    uri = _text_of(values.get("uri"))
    text = {name: _text_of(values.get(name)).strip() for name in COLUMNS}
    if not text["label"] and not text["verdict"]:
        return None
    verdict = _one_of("verdict", text["verdict"] or "label", VERDICTS)
    if not uri:
        raise ValueError("uri is empty: it names no image")
    if (verdict == "label") != bool(text["label"]):
        said = f"is {_shown(text['label'])}" if text["label"] else "is empty"
        raise ValueError(f"label {said}, but verdict is {verdict}")
    if text["run_id"] and not is_run_id(text["run_id"]):
        raise ValueError(f"run_id is {_shown(text['run_id'])}, which no run has")
    return Correction(
        uri=uri,
        label=text["label"],
        verdict=verdict,
        queue=_one_of("queue", text["queue"], QUEUES) if text["queue"] else None,
        proposed=text["proposed"],
        score=_score(text["score"]),
        run_id=text["run_id"],
        who=text["who"],
        when=_when(text["when"]),
    )


def _text_of(value: Any) -> str:
    """NaN is how pandas leaves a cell empty."""
    return "" if value is None or value != value else str(value)


def _rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that has any, with the line at which it begins.

    Raises:
        ValueError: it is not whole, or no CSV in UTF-8.
    """
    reader = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {begin}: {error}") from error


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line} holds a zero byte")
    return text


def _header(names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if missing := [name for name in NEEDED if name not in names]:
        has = f"has the columns {', '.join(map(_shown, names[:20]))}" if names else "is empty"
        raise ValueError(f"line 1 {has}, not {' and '.join(missing)}")
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise ValueError(f"line 1 has the column {twice[0]} twice")
    return names


def _decisions(
    rows: Iterable[tuple[int, list[str]]], header: Sequence[str]
) -> Iterator[Correction]:
    """One for each row that says something; of equal rows, the first."""
    said: dict[tuple[str, str], tuple[int, Correction]] = {}
    for line, cells in rows:
        if (one := _correction(line, header, cells)) is None:
            continue
        first, other = said.setdefault((one.uri, one.when), (line, one))
        if (one.verdict, one.label) != (other.verdict, other.label):
            raise ValueError(
                f"line {line} says {one.label or one.verdict} of an image, line {first} "
                f"{other.label or other.verdict}, and neither is the later one"
            )
        if first == line:
            yield one


def _correction(line: int, header: Sequence[str], cells: Sequence[str]) -> Correction | None:
    if len(cells) != len(header):
        raise ValueError(f"line {line} has {len(cells)} cells, the header {len(header)}")
    if max(map(len, cells)) > MOST_CHARACTERS:
        raise ValueError(f"line {line} has a cell of more than {MOST_CHARACTERS:,} characters")
    try:
        return correction_from(dict(zip(header, cells, strict=True)))
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from error


def _one_of(column: str, value: str, accepted: tuple[T, ...]) -> T:
    for one in accepted:
        if one == value:
            return one
    raise ValueError(f"{column} is {_shown(value)}, not one of {', '.join(map(str, accepted))}")


def _score(text: str) -> float | None:
    try:
        score = float(text) if text else 0.0
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score is {_shown(text)}, which is no number")
    return score if text else None


def _when(text: str) -> str:
    """A time without a zone is one of UTC."""
    if not text:
        return ""
    try:
        time = datetime.fromisoformat(text)
        return moment(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"when is {_shown(text)}, which is no time of ISO 8601") from error


def _shown(text: str) -> str:
    return repr(one_line(text, 60))
