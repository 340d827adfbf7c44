"""Odd lines of lists: each costs one row, and none of the others."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats import lists
from pipeline.sources.inventory import MOST_STORES
from tests.support.inputs.fetching import MIB, code, work
from tests.support.inputs.listing import rows, touch, uris
from tests.support.inputs.raised import RAISED, name


@pytest.fixture(autouse=True)
def no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets of these lists are nowhere."""
    monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", lambda bucket: None)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("nul.txt", b"a.jpg\n/x\0y.jpg\n", "/x\0y.jpg"),
        ("nul.csv", b"uri\na.jpg\n/x\0y.jpg\n", "/x\0y.jpg"),
        ("nul.jsonl", b'{"uri":"a.jpg"}\n{"uri":"/x\0y.jpg"}\n', "/x\0y.jpg"),
        ("nul.jsonl", b'{"uri":"a.jpg"}\n{"uri":"/x\\u0000y.jpg"}\n', "/x\0y.jpg"),
        ("half.jsonl", b'{"uri":"a.jpg"}\n{"uri":"http://h/\\ud800"}\n', r"http://h/\ud800"),
        ("latin.txt", b"a.jpg\n/caf\xe9.jpg\n", r"/caf\udce9.jpg"),
        ("latin.csv", b"uri\na.jpg\n/caf\xe9.jpg\n", r"/caf\udce9.jpg"),
        ("latin.jsonl", b'{"uri":"a.jpg"}\n{"uri":"/caf\xe9.jpg"}\n', r"/caf\udce9.jpg"),
        ("long.txt", b"a.jpg\n/" + b"n" * 10**6 + b"\n", "/" + "n" * 10**6),
        ("data.txt", b"a.jpg\ns3://\n", "s3://"),
        ("odd.txt", b"a.jpg\nfoo://bar\n", "foo://bar"),
        ("odd.txt", b"a.jpg\nhttp://[::1/x\n", "http://[::1/x"),
        ("odd.txt", b"a.jpg\n  https://h.example/x \n", "https://h.example/x"),
    ],
)
def test_odd_lines_are_rows(tmp_path: Path, file: str, content: bytes, named: str) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / file).write_bytes(content)
    assert uris(tmp_path / file) == [f"{tmp_path}/a.jpg", named]


@pytest.mark.parametrize(
    "odd",
    [
        b'{"uri": "x.jpg", "n": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        b'{"uri": "x.jpg", "n": ' + b'{"n": ' * 10**5 + b"1" + b"}" * 10**5 + b"}",
        b'{"uri": "x.jpg", "n": ' + b"9" * 5000 + b"}",
    ],
    ids=["deep arrays", "deep objects", "a long number"],
)
@pytest.mark.parametrize("first", [True, False])
def test_lines_that_name_nothing_are_rows(tmp_path: Path, odd: bytes, first: bool) -> None:
    good = b'{"uri": "s3://b/a.jpg", "n": 1}'
    (tmp_path / "l.jsonl").write_bytes(b"\n".join([odd, good] if first else [good, odd]))
    found = rows(tmp_path / "l.jsonl")
    number = 1 if first else 2
    refused = found.pop(number - 1)
    assert [row["uri"] for row in found] == ["s3://b/a.jpg"]
    assert refused["uri"] == f"{tmp_path}/l.jsonl#{number}"
    assert f"line {number} cannot be read" in refused["refusal"]
    (item,) = fetch_items(work(refused), MIB)
    assert code(item) == "url_refused"


@pytest.mark.parametrize("odd", [10**20, -(10**20), [10**20], {"y": {"z": 10**400}}])
def test_numbers_of_any_size_stand_beside_a_name(tmp_path: Path, odd: Any) -> None:
    lines = [{"uri": "/a.jpg", "x": odd}, {"uri": "/b.jpg", "x": 1}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert uris(tmp_path / "l.jsonl") == ["/a.jpg", "/b.jpg"]


@pytest.mark.parametrize("error", [e for e in RAISED if isinstance(e, Exception)], ids=name)
def test_lines_at_which_anything_is_raised_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    describe = lists._described

    def describe_or_raise(uri: str, *arguments: Any) -> dict[str, Any]:
        if uri.endswith("b.jpg"):
            raise error
        return describe(uri, *arguments)

    monkeypatch.setattr(lists, "_described", describe_or_raise)
    (tmp_path / "l.txt").write_text("s3://b/a.jpg\ns3://b/b.jpg\ns3://b/c.jpg\n")
    found = rows(tmp_path / "l.txt")
    assert [row["uri"] for row in found] == [
        "s3://b/a.jpg", f"{tmp_path}/l.txt#2", "s3://b/c.jpg"
    ]  # fmt: skip
    assert found[1]["refusal"].isprintable()


def test_a_list_on_an_old_disk_names_its_files(tmp_path: Path) -> None:
    """Written by ``find`` where names are Latin-1."""
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"bytes")
    (tmp_path / "l.txt").write_bytes(b"caf\xe9.jpg\n")
    (row,) = rows(tmp_path / "l.txt")
    (item,) = fetch_items(work(row), MIB)
    assert (item.uri, item.data) == (f"{tmp_path}/caf\\udce9.jpg", b"bytes")


@pytest.mark.parametrize(
    ("file", "content", "number"),
    [
        ("l.jsonl", b'{"uri": "a"}\n{"uri": "b"}\n{"uri": \n', 3),
        ("l.jsonl", b'{"uri": "a"}\n[1]\n', 2),
        ("l.csv", b'uri,n\na,1\nb,"1\n', 3),
        ("l.csv", b"uri,n\na,1\nb\n", 3),
        ("l.txt", "a.jpg\n".encode("utf-16"), 1),
    ],
)
def test_lines_that_make_the_format_doubtful_are_named(
    tmp_path: Path, file: str, content: bytes, number: int
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UsageError, match=f"l.{file[2:]} cannot be read.*line {number}"):
        rows(tmp_path / file)


def test_a_large_cell_beside_the_name(tmp_path: Path) -> None:
    """Python's own limit is 128 KiB."""
    (tmp_path / "l.csv").write_text(f"uri,text\ns3://b/a.jpg,{'x' * 10**6}\ns3://b/b.jpg,\n")
    assert uris(tmp_path / "l.csv") == ["s3://b/a.jpg", "s3://b/b.jpg"]


@pytest.mark.parametrize(
    "odd",
    [
        pa.array([0, 2**60], pa.timestamp("ms")),
        pa.array([0, 2**62], pa.date64()),
        pa.array([0, 2**31 - 1], pa.date32()),
        pa.StringArray.from_buffers(
            2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")
        ),
    ],
    ids=["time", "date64", "date32", "no text"],
)
def test_rows_of_parquet_that_python_has_no_value_for(tmp_path: Path, odd: pa.Array) -> None:
    table = pa.table({"uri": ["s3://b/a.jpg", "s3://b/b.jpg"], "odd": odd})
    pq.write_table(table, tmp_path / "l.parquet")
    assert uris(tmp_path / "l.parquet") == ["s3://b/a.jpg", f"{tmp_path}/l.parquet#2"]


def test_stores_without_credentials_cost_the_lines_that_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the list begins with one: then it is probably the store that is meant."""

    def refuse(uri: str) -> str | None:
        if uri.startswith("abfs://c@d/"):
            raise UsageError("cannot reach Azure")
        foreign = "gs://" in uri or "@foreign" in uri
        return "nobody here knows Google" if foreign else None

    monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", refuse)
    names = ["https://h.example/x.jpg", "s3://b/a.jpg", "gs://b/a.jpg", "abfs://c@d/a.jpg", "b.jpg",
             "az://c@own/a.jpg", "az://c@foreign/a.jpg", "az://c/a.jpg"]  # fmt: skip
    (tmp_path / "l.txt").write_text("\n".join(names))
    found = {row["uri"]: row.get("refusal") for row in rows(tmp_path / "l.txt")}
    assert found == {
        "https://h.example/x.jpg": None,
        "s3://b/a.jpg": None,
        "gs://b/a.jpg": "no credentials: nobody here knows Google",
        "abfs://c@d/a.jpg": "no credentials: cannot reach Azure",
        f"{tmp_path}/b.jpg": None,
        "az://c@own/a.jpg": None,
        "az://c@foreign/a.jpg": "no credentials: nobody here knows Google",
        "az://c/a.jpg": None,
    }
    (tmp_path / "l.txt").write_text("\n".join(["https://h.example/x.jpg", "foo://x", *names[2:]]))
    with pytest.raises(UsageError, match="nobody here knows Google"):
        rows(tmp_path / "l.txt")


def test_not_every_account_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", asked.append)
    names = [f"az://c@account{number}/x.jpg" for number in range(MOST_STORES + 20)]
    (tmp_path / "l.txt").write_text("\n".join(names * 2))
    refused = [row for row in rows(tmp_path / "l.txt") if "refusal" in row]
    assert len(asked) == MOST_STORES
    assert len(refused) == 20
