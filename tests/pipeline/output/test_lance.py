"""The Lance dataset beside the Parquet files: the newest row of every image, however often."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lance.dataset import MergeInsertBuilder

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.layout import LANCE
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import (
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RelabelSpec,
    RunSpec,
)
from pipeline.output.lance import check, update
from pipeline.runs.relabel.job import relabel
from pipeline.runs.run import run
from pipeline.storage.objects.s3.access import access
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of

WHERE_LANCE_IS_TRIED = pytest.mark.parametrize(
    "store", ["local", pytest.param("s3", marks=pytest.mark.server)], indirect=True
)
"""The server that stands for Google has no interface that Lance speaks."""
CLASSES = ["cat", "dog", "ü"]
WIDTH = 8
# What docs/output.md tells the readers of data/ to ask for.
NEWEST = """
    SELECT * EXCLUDE (run) FROM rows
    QUALIFY row_number() OVER (PARTITION BY uri ORDER BY run DESC) = 1 AND status <> 'vanished'
    ORDER BY uri
"""


def night(store: Store, seed: int, count: int, *, prefix: str = "image", full: bool = False) -> Any:
    """A closed run of images 0 to ``count`` with numbers of their own, and one failure."""
    rng = np.random.default_rng(seed)
    rows = rows_of(
        rng.random((count, len(CLASSES)), dtype=np.float32),
        CLASSES,
        embeddings=rng.standard_normal((count, WIDTH)).astype(np.float32),
        failures=["corrupt"],
        prefix=prefix,
    )
    close_run(store, rows, CLASSES, full=full)


def newest(store: Store) -> list[dict[str, Any]]:
    """The newest row of every image, by DuckDB from the Parquet files."""
    tables = []
    for name in store.list("data"):
        with store.fs.open(store.path(name)) as file:
            table = pq.ParquetFile(file).read()
        run_id = name.split("run=")[1].split("/")[0]
        tables.append(table.append_column("run", pa.array([run_id] * len(table))))
    with duckdb.connect() as connection:
        connection.register("rows", pa.concat_tables(tables))
        found: pa.Table = connection.sql(NEWEST).to_arrow_table()
    result: list[dict[str, Any]] = found.to_pylist()
    return result


def opened(store: Store) -> lance.LanceDataset:
    endpoint = None if store.is_local else access().endpoint
    options = {"aws_endpoint": endpoint, "allow_http": "true"} if endpoint else None
    return lance.dataset(store.locate(LANCE), storage_options=options)


def rows(store: Store) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = opened(store).to_table().sort_by("uri").to_pylist()
    return found


@WHERE_LANCE_IS_TRIED
def test_it_holds_the_newest_row_of_every_image(store: Store) -> None:
    night(store, 1, 30)
    update("lance", store)
    assert rows(store) == newest(store)
    night(store, 2, 10)
    night(store, 3, 7, prefix="new")
    update("lance", store)
    assert len(rows(store)) == 30 + 7 + 2
    assert rows(store) == newest(store)
    with store.fs.open(store.path(next(iter(store.list("data"))))) as file:
        assert opened(store).schema == pq.read_schema(file).remove_metadata()

    version = opened(store).version
    update("lance", store)
    assert opened(store).version == version, "nothing new, nothing written"


def test_what_vanished_leaves_it(local_store: Store) -> None:
    night(local_store, 1, 30)
    update("lance", local_store)
    gone = [f"s3://bucket/image{number:06d}.jpg" for number in range(10, 30)]
    schema = read_table(local_store, next(iter(local_store.list("data")))).schema
    close_run(local_store, vanished_rows(gone, schema.remove_metadata()), CLASSES, expected=0)
    night(local_store, 2, 2, prefix="new")
    update("lance", local_store)
    assert len(rows(local_store)) == 10 + 1 + 2 + 1
    assert rows(local_store) == newest(local_store)


def test_a_full_run_replaces_all_rows(local_store: Store) -> None:
    night(local_store, 1, 30)
    update("lance", local_store)
    night(local_store, 2, 5, full=True)
    night(local_store, 3, 2)
    update("lance", local_store)
    assert {row["uri"] for row in rows(local_store)} == {
        *(f"s3://bucket/image{n:06d}.jpg" for n in range(5)),
        "s3://bucket/image-bad000000.jpg",
    }


def test_neighbours_are_those_of_brute_force(local_store: Store) -> None:
    night(local_store, 1, 300)
    update("lance", local_store)
    stored = [row for row in newest(local_store) if row["status"] == "ok"]
    vectors = np.array([row["embedding"] for row in stored], np.float32)
    query = np.random.default_rng(9).standard_normal(WIDTH).astype(np.float32)
    order = np.argsort(((vectors - query) ** 2).sum(axis=1))
    nearest = {"column": "embedding", "q": query, "k": 10}
    found = opened(local_store).to_table(columns=["uri", "_distance"], nearest=nearest)
    assert found["uri"].to_pylist() == [stored[place]["uri"] for place in order[:10]]
    everything = opened(local_store).to_table(columns=["uri"], nearest=nearest | {"k": 400})
    assert len(everything) == 300, "a failed image is nobody's neighbour"


class KilledError(BaseException):
    """Stands for the end of the process; no handler of errors sees it."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Killed before step 0, after it, before step 1, and so on."""
    done: list[str] = []

    def guard(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if 2 * len(done) == step:
                raise KilledError
            result = real(*args, **kwargs)
            done.append(name)
            if 2 * len(done) - 1 == step:
                raise KilledError
            return result

        patch.setattr(owner, name, guarded)

    with monkeypatch.context() as patch:
        guard(lance, "write_dataset")
        guard(MergeInsertBuilder, "execute")
        guard(lance.LanceDataset, "update_config")
        yield done


@WHERE_LANCE_IS_TRIED
def test_an_update_may_break_off_anywhere(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    night(store, 1, 12)
    night(store, 2, 6)
    with killed_at(-1, monkeypatch) as steps:
        update("lance", store)
    assert steps == ["write_dataset", "execute", "update_config"]
    expected = rows(store)
    for step in range(2 * len(steps)):
        store.remove(LANCE)
        with killed_at(step, monkeypatch), pytest.raises(KilledError):
            update("lance", store)
        update("lance", store)
        assert rows(store) == expected == newest(store), step


@WHERE_LANCE_IS_TRIED
def test_wrong_credentials_are_one_line_without_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.is_local:
        pytest.skip("a local disk asks for none")
    night(store, 1, 3)
    update("lance", store)
    night(store, 2, 3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-such-secret")
    with pytest.raises(RunError, match=r"published, but not in s3://.*start the same") as caught:
        update("lance", store)
    assert "no-such-secret" not in str(caught.value)


@WHERE_LANCE_IS_TRIED
def test_keys_of_a_profile_reach_lance(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if store.is_local:
        pytest.skip("a local disk asks for none")
    night(store, 1, 3)
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = eu-north-1\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n"
        f"aws_access_key_id = {os.environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {os.environ['AWS_SECRET_ACCESS_KEY']}\n"
    )
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    update("lance", store)
    assert store.list(f"{LANCE}/_versions")


def test_a_run_without_the_sink_says_that_the_dataset_is_behind(
    local_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    night(local_store, 1, 3)
    update("parquet", local_store)
    assert not caplog.messages
    update("lance", local_store)
    update("parquet", local_store)
    assert "images.lance is not updated without <output.sink> lance" in caplog.messages[-1]


def test_relabelling_makes_a_dataset_of_its_own(local_store: Store, tmp_path: Path) -> None:
    night(local_store, 1, 20)
    update("lance", local_store)
    before = rows(local_store)
    new = Store(str(tmp_path / "new"))
    spec = RelabelSpec(
        source=local_store.uri, output=new.uri, label_map={"dog": "cat"}, sink="lance"
    )
    relabel(spec)
    assert rows(new) == newest(new)
    assert {row["label"] for row in rows(new)} == {"cat", "ü", None}
    assert rows(local_store) == before


class TestRefusals:
    def test_missing_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lance", None)
        spec = RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "nowhere"),)),
            model=ModelSpec(source="nowhere"),
            output=OutputSpec(uri=str(tmp_path / "out"), top_k=1, sink="lance"),
        )
        with pytest.raises(UsageError, match="pip install pylance"):
            run(spec)

    @pytest.mark.parametrize("uri", ["s3://bucket/a#b", "s3://bucket/50%", "memory://out"])
    def test_places_that_lance_does_not_reach(self, uri: str) -> None:
        with pytest.raises(UsageError, match=r"output\.sink lance"):
            check("lance", Store(uri))
        check("parquet", Store(uri))

    def test_two_models_in_one_dataset(self) -> None:
        with pytest.raises(UsageError, match=r"output\.sink lance excludes policy\.allow_mixed"):
            RunSpec(
                inputs=InputSpec(uris=("in",)),
                model=ModelSpec(source="m"),
                output=OutputSpec(uri="out", top_k=1, sink="lance"),
                policy=PolicySpec(allow_mixed=True),
            )


def test_names_on_disk_are_literal(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "50% #1?"))
    night(store, 1, 3)
    update("lance", store)
    night(store, 2, 3)
    update("lance", store)
    assert rows(store) == newest(store)
    assert json.loads(store.read_bytes("latest.json"))["run_id"] == "00000001"
