"""Files below OUT that no run wrote, or not so: each ends in one line, and none leads elsewhere."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError, RunError
from pipeline.contract.manifest import Manifest
from pipeline.contract.records import Record
from pipeline.output.lease import Lease
from pipeline.output.ledger.history import History
from pipeline.output.merging.tally import Tally
from pipeline.output.open_run import OpenRun, PartFooter
from pipeline.output.publish import publish
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs import open_runs

DEEP = "[" * 100_000
ODD_JSON = {
    "nothing": "", "no JSON": "{", "a list": "[1]", "a string": '"x"', "null": "null", "deep": DEEP,
    "deep in a field": '{"a": ' + DEEP, "UTF-16": "\\ufeff{}", "a large number": "9" * 5000,
    "a larger float": '{"beat": 1e999}', "no number": '{"beat": NaN}',
    "types": '{"owner": 1, "parts": {}, "run_id": []}',
}  # fmt: skip


@pytest.mark.parametrize("text", ODD_JSON.values(), ids=ODD_JSON)
def test_an_odd_lease_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / layout.LEASE).write_text(text)
    with Lease(Store(str(tmp_path)), stale_seconds=100) as lease:
        lease.check()


def test_a_record_of_a_gigabyte_is_not_read(local_store: Store) -> None:
    for name in (layout.LEASE, layout.manifest_file("1"), layout.open_record("1")):
        local_store.write_bytes(name, b"")
        os.truncate(local_store.path(name), 10**9)
    with Lease(local_store, stale_seconds=100) as lease:
        lease.check()
    for read in (History.load, OpenRun.find):
        with pytest.raises(DamagedFileError, match=r"\.json is damaged: it has more than .*remove"):
            read(local_store)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "-1e999"])
def test_numbers_of_a_record_are_finite(constant: str) -> None:
    text = f'{{"run_id": "1", "timings": {{"seconds": {{"a": {constant}}}}}}}'
    with pytest.raises(DamagedFileError, match="is no number, or too large a one"):
        Manifest.from_json(text.encode(), "x")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"pid": None},
        {"pid": "../../etc"},
        {"pid": -1},
        {"pid": 2**62},
        {"process": 7},
        {"process": ""},
        {"host": ["h"], "renewed": 3},
        {"beat": "x"},
    ],
)
def test_a_forged_lease_has_to_run_out(tmp_path: Path, odd: dict[str, Any]) -> None:
    (tmp_path / layout.LEASE).write_text(json.dumps({"owner": "x"} | odd))
    with Lease(Store(str(tmp_path)), stale_seconds=0.3) as lease:
        lease.check()


def test_what_a_lease_says_of_its_holder_is_shown_on_one_line(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    evil = {"owner": "x", "host": "a\nb\x1b[31m" + "h" * 5000, "beat": 1}
    store.write_json(layout.LEASE, evil)

    class Renewed(Lease):
        def _read(self) -> Any:
            store.write_json(layout.LEASE, evil | {"beat": 2 + getattr(self, "_beat", 0)})
            self._beat += 1
            return super()._read()

    with pytest.raises(RunError, match="another run is at work") as caught:
        Renewed(store, stale_seconds=5).__enter__()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_clocks_of_hosts_are_never_compared(tmp_path: Path) -> None:
    """One host is a day ahead of this one, another a day behind."""
    for renewed in ("2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"):
        store = Store(str(tmp_path / renewed[:4]))
        store.write_json(layout.LEASE, {"owner": "x", "renewed": renewed, "host": "elsewhere"})
        with Lease(store, stale_seconds=0.3) as lease:
            lease.check()


@pytest.mark.parametrize("text", ODD_JSON.values(), ids=ODD_JSON)
@pytest.mark.parametrize("name", [layout.manifest_file("1"), layout.open_record("1")])
def test_odd_records(local_store: Store, name: str, text: str) -> None:
    local_store.write_bytes(name, text.encode())
    read = History.load if name.startswith(layout.RUNS) else OpenRun.find
    with pytest.raises(DamagedFileError, match=r"\.json is damaged: .*; (restore|remove) it") as e:
        read(local_store)
    assert str(e.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere.parquet",
        "data/run=1/../../../elsewhere.parquet",
        "data/run=1/./x.parquet",
        "/etc/passwd",
        "/data/run=1/part-00000.parquet",
        "file:///etc/passwd",
        "s3://other/data/run=1/x.parquet",
        "data/run=1/sub/x.parquet",
        "data//x.parquet",
        "data/run=1/x.parquet\n",
        "data/run=1/x\0.parquet",
        "data\\run=1\\x.parquet",
        "simplecache::https://host/data/run=1/x.parquet",
        "latest.json",
        "",
    ],
)
def test_names_of_files_stay_below_the_output(local_store: Store, name: str) -> None:
    run = open_runs.open_run(local_store)
    manifest = open_runs.manifest_of(run, Tally()).to_dict()
    for place in (layout.manifest_file("1"), layout.publish_manifest(run.run_id)):
        local_store.write_json(place, manifest | {"files": [{"name": name, "rows": 1}]})
    with pytest.raises(DamagedFileError, match=r"files\[0\] is .*, which no run writes; restore"):
        History.load(local_store)
    with pytest.raises(DamagedFileError, match="which no run writes"):
        publish(run)
    assert layout.is_data_file(f"{layout.data_dir('20261126T1-a')}/{layout.data_file(7)}")


@pytest.mark.parametrize(
    "footer",
    ["{", "[]", DEEP, '{"shards": []}', '{"shards": {"a": "b"}}', '{"thumbnails": [{"x": 1}]}',
     '{"thumbnails": [{"uri": 1, "label": null, "jpeg": ""}]}', "\xff"],
)  # fmt: skip
def test_rows_of_a_part_with_an_odd_footer_are_computed_again(
    local_store: Store, footer: str
) -> None:
    run = open_runs.open_run(local_store)
    name = run.parts[0].name
    table = read_table(local_store, name)
    odd = table.replace_schema_metadata({b"cvt.part": footer.encode("latin-1")})
    pq.write_table(odd, local_store.path(name))
    found = OpenRun.find(local_store)
    assert found is not None
    assert [part.name for part in found.parts] == [part.name for part in run.parts[1:]]


@pytest.mark.parametrize("damage", ["not Parquet", "cut", "no uri", "an empty file"])
def test_damaged_data_files_are_named(local_store: Store, damage: str) -> None:
    name = f"{layout.data_dir('1')}/{layout.data_file(0)}"
    table = pa.table({"id" if damage == "no uri" else "uri": ["a"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    cut = {"not Parquet": b"x" * 999, "cut": data[:-9], "no uri": data, "an empty file": b""}
    local_store.write_bytes(name, cut[damage])
    with pytest.raises(DamagedFileError, match=rf"{layout.data_file(0)} is damaged: .*; restore"):
        read_table(local_store, name, ["uri"])


def test_records_of_other_kinds_stay_small() -> None:
    with pytest.raises(DamagedFileError, match="too large a number"):
        PartFooter.from_json(b'{"shards": {"a": ' + b"9" * 20 + b"}}", "x")
    assert issubclass(PartFooter, Record)
