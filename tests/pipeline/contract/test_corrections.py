"""``corrections.csv``: what is read as meant, and what is refused with its line."""

import csv
import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pytest

from pipeline.contract.corrections import (
    COLUMNS,
    Correction,
    is_corrections,
    moment,
    newest,
    read_corrections,
    write_corrections,
)
from pipeline.contract.errors import UsageError

ODD = Correction(
    uri='s3://b/a, "7"\nold.jpg ',
    label="cat, \"big\"\nor 'small'",
    queue="random",
    proposed="dög",
    score=0.1 + 0.2,
    run_id="20261127T022507Z-0a1b2c",
    who="Ann; Bob",
    when="2026-11-27T02:25:07.125Z",
)
PLAIN = Correction(uri="/a/b.jpg", verdict="bad_picture", queue="unlike")


def test_what_is_written_is_read() -> None:
    assert read_corrections(write_corrections([ODD, PLAIN]), "c.csv") == [ODD, PLAIN]


def test_others_read_what_is_written(tmp_path: Path) -> None:
    data = write_corrections([ODD, PLAIN])
    (tmp_path / "c.csv").write_bytes(data)
    assert [row["uri"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))] == [
        ODD.uri,
        PLAIN.uri,
    ]
    options = pa.csv.ParseOptions(newlines_in_values=True)
    table = pa.csv.read_csv(io.BytesIO(data), parse_options=options)
    assert table.column_names == list(COLUMNS)
    assert table["label"].to_pylist() == [ODD.label, ""]
    query = f"SELECT uri, score FROM read_csv('{tmp_path}/c.csv')"
    found = duckdb.connect().execute(query).fetchall()
    assert found == [(ODD.uri, ODD.score), (PLAIN.uri, None)]


@pytest.mark.parametrize(
    "text",
    [
        "uri,label\na.jpg,cat\n",
        "\ufeffuri,label\r\na.jpg,cat\r\n",
        " label , uri , my notes \ncat,a.jpg,nice\n",
        "uri,label\n\na.jpg, cat \nb.jpg,\n",
        "uri,label,verdict\na.jpg,cat,\nb.jpg,,\n",
        "uri,label\na.jpg,cat\na.jpg,cat",
    ],
)
def test_a_file_made_by_hand(text: str) -> None:
    assert read_corrections(text.encode(), "c.csv") == [Correction(uri="a.jpg", label="cat")]


@pytest.mark.parametrize(
    ("when", "read"),
    [
        ("2026-11-27T02:25:07Z", "2026-11-27T02:25:07.000Z"),
        ("2026-11-27T02:25:07.1239+01:00", "2026-11-27T01:25:07.123Z"),
        ("2026-11-27", "2026-11-27T00:00:00.000Z"),
        ("", ""),
    ],
)
def test_times_follow_each_other_as_texts(when: str, read: str) -> None:
    (found,) = read_corrections(f"uri,label,when\na.jpg,cat,{when}\n".encode(), "c.csv")
    assert found.when == read


def test_a_moment_is_in_utc() -> None:
    time = datetime(2026, 11, 27, 1, tzinfo=timezone(timedelta(hours=1)))
    assert moment(time) == moment(datetime(2026, 11, 27, tzinfo=UTC)) == "2026-11-27T00:00:00.000Z"


def test_the_newest_counts() -> None:
    def said(label: str, when: str) -> Correction:
        return Correction(uri="a.jpg", label=label, when=when)

    late, early, never = said("cat", "2026-02"), said("dog", "2026-01"), said("cow", "")
    again = said("hen", "2026-02")
    assert newest([never, late, early]) == newest([late, never]) == {"a.jpg": late}
    assert newest([late, again]) == {"a.jpg": again}


def test_which_tables_are_corrections() -> None:
    assert is_corrections(COLUMNS)
    assert not is_corrections(["uri", "label"])


HEADER = b"uri,label,verdict,queue,score,run_id,when\n"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "line 1 is empty"),
        (b"uri;label\n", "line 1 has the columns 'uri;label', not uri and label"),
        (b"uri,label,uri\n", "line 1 has the column uri twice"),
        (b"uri,label\na.jpg,cat\nb.jpg\n", "line 3 has 1 cells, the header 2"),
        (b'uri,label\na.jpg,cat\n"b.jpg,dog\nc.jpg,cow\n', "line 3: unexpected end of data"),
        (b'uri,label\n"a.jpg"x,cat\n', "line 2: ',' expected after '\"'"),
        (b"uri,label\na.jpg,cat\nb.jpg,\xff\n", "line 3 is not in UTF-8"),
        ("uri,label\n".encode("utf-16"), "line 1 is not in UTF-8"),
        (b"uri,label\na.jpg,\0\n", "line 2 holds a zero byte"),
        (b"uri,label\na.jpg," + b"x" * 120_000, "line 2 has a cell of more than 100,000 char"),
        (b"uri,label\n,cat\n", "line 2: uri is empty"),
        (HEADER + b"a.jpg,,label,,,,\n", "line 2: label is empty, but verdict is label"),
        (HEADER + b"a.jpg,cat,none,,,,\n", "line 2: label is 'cat', but verdict is none"),
        (HEADER + b"a.jpg,cat,skip,,,,\n", "line 2: verdict is 'skip', not one of label, none"),
        (HEADER + b"a.jpg,cat,,odd,,,\n", "line 2: queue is 'odd', not one of uncertain, unlike"),
        (HEADER + b"a.jpg,cat,,,nan,,\n", "line 2: score is 'nan', which is no number"),
        (HEADER + b"a.jpg,cat,,,,../../x,\n", "line 2: run_id is '../../x', which no run has"),
        (HEADER + b"a.jpg,cat,,,,,2026-11-2\n", "line 2: when is '2026-11-2', which is no time"),
        (HEADER + b"a.jpg,cat,,,,,0001-01-01T00:00+14:00\n", "line 2: when is '0001"),
        (b"uri,label\na,cat\n\nb,x\na,dog\n", "line 5 says dog of an image, line 2 cat"),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(UsageError) as error:
        read_corrections(data, "c.csv")
    assert f"c.csv: {cause}" in str(error.value)
    assert "\n" not in str(error.value)
