"""What a decode task tells of shards whose images nobody has counted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.schema import WORK
from pipeline.contract.spec import InputSpec
from pipeline.plan.shards import MEMBER_BYTES
from pipeline.sources.fetch import fetch_items
from pipeline.sources.inventory import inventory
from pipeline.stages.decode.members import Members
from tests.support.inputs.fetching import MIB
from tests.support.inputs.tars import tar_bytes


def work(path: Path, done: list[str] | None = None) -> pa.Table:
    (table,) = inventory(InputSpec(uris=(str(path),)))
    return pa.Table.from_pylist([{**table.to_pylist()[0], "_done": done}], schema=WORK)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """What of DECODED rows counts."""
    return [
        {"_shard": item.shard, "_shard_rows": item.shard_rows, "size_bytes": item.size_bytes}
        for item in fetch_items(table, MIB)
    ]


@pytest.mark.parametrize("done", [None, ["s.tar#0.jpg", "s.tar#1.jpg"]])
def test_a_task_counts_the_members_that_it_reads(tmp_path: Path, done: list[str] | None) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes({f"{n}.jpg": b"x" * 100 for n in range(5)}))
    table = work(path, [f"{tmp_path}/{name}" for name in done] if done else None)
    read = rows(table)
    members = Members(table)
    first = members.count(read[:1])
    assert first == {"members": 1 + len(done or ()), "member_bytes": 100 + MEMBER_BYTES}
    rest = members.count(read[1:])
    assert first["members"] + rest["members"] == 5
    assert first["member_bytes"] + rest["member_bytes"] == path.stat().st_size
    assert rest["shards_read"] == 1


def test_nothing_is_counted_of_what_is_known(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 4}), tmp_path / "a.parquet")
    table = work(tmp_path / "a.parquet")
    assert table["images"].to_pylist() == [4]
    assert Members(table).count(rows(table)) == {}
