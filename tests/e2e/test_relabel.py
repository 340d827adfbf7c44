"""Relabelling at the command line, on a run whose rows were put together by hand."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from pipeline.storage.store import Store
from tests.support.commands import CallJob, run_job
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of

CLASSES = ["cat", "lynx", "dog", "car"]


def write_source(folder: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """An output with one closed run; its embeddings (40, 6)."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 40).astype(np.float32)
    embeddings = rng.normal(size=(40, 6)).astype(np.float32)
    rows = rows_of(scores, CLASSES, top_k=4, embeddings=embeddings, failures=["corrupt"])
    identity = replace(IDENTITY, top_k=4, embedding="fixed_size_list<element: float>[6]")
    close_run(Store(str(folder)), rows, CLASSES, identity=identity)
    return embeddings


def answer(query: str) -> list[tuple[object, ...]]:
    """What a reader that knows nothing of us finds."""
    return duckdb.connect().execute(query).fetchall()


def test_map_and_thresholds(tmp_path: Path, call_job: CallJob) -> None:
    write_source(tmp_path / "out")
    (tmp_path / "map.json").write_text('{"lynx": "cat"}')
    arguments: list[str | Path] = [
        tmp_path / "out", "--output", tmp_path / "new",
        "--label-map", tmp_path / "map.json", "--thresholds", "0.5",
    ]  # fmt: skip
    done = run_job("relabel", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "41 images listed = 40 ok + 1 failed + 0 skipped" in done.stdout
    files = str(tmp_path / "new/data/**/*.parquet")
    found = answer(
        f"select distinct label from read_parquet('{files}') where label is not null order by 1"
    )
    assert found == [("car",), ("cat",), ("dog",)]
    query = f"select * from read_parquet('{files}') where (score >= 0.5) != (len(labels) > 0)"
    assert not answer(query)
    again = call_job("relabel", *arguments)
    assert again.returncode == 0
    assert again.stdout.startswith("nothing new: 41 images unchanged\n")


def test_another_head(tmp_path: Path, call_job: CallJob) -> None:
    embeddings = write_source(tmp_path / "out")
    weight = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    np.savez(tmp_path / "head.npz", weight=weight, labels=np.array(["a", "b", "c"]))
    done = call_job("relabel", tmp_path / "out", "--output", tmp_path / "new",
                    "--head", tmp_path / "head.npz")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    files = str(tmp_path / "new/data/**/*.parquet")
    query = f"select label_id from read_parquet('{files}') where status = 'ok' order by uri"
    expected = (embeddings @ weight.T).argmax(axis=1).tolist()
    assert [row[0] for row in answer(query)] == expected
    manifest = json.loads((tmp_path / "new" / "latest.json").read_text())["manifest"]
    assert json.loads((tmp_path / "new" / manifest).read_text())["counts"]["ok"] == 40


def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path: Path, call_job: CallJob) -> None:
    write_source(tmp_path / "out")
    (tmp_path / "map.json").write_text('{"unicorn": "cat"}')
    done = call_job("relabel", tmp_path / "out", "--output", tmp_path / "new",
                    "--label-map", tmp_path / "map.json")  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: --label-map names unknown classes: unicorn\n"
    assert not (tmp_path / "new").exists()
