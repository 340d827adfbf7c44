"""Every kind of INPUT at once through the public command: on disk and the web, and in a bucket."""

import csv
import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import CallJob, run_job
from tests.support.inputs.images import write_images
from tests.support.outputs.found import published_rows
from tests.support.servers.seaweedfs import Bucket
from tests.support.servers.web_server import Answer, serve

pytestmark = pytest.mark.usefixtures("ray_local")


def write_tar(path: Path, images: list[Path]) -> None:
    """A WebDataset: nested keys, the sibling first, and a name that comes again."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for number, image in enumerate(images):
            name = f"train/{min(number, len(images) - 2)}"
            data = str(number).encode()
            info = tarfile.TarInfo(f"{name}.cls")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            tar.add(image, f"{name}.jpg")


def write_table(path: Path, images: list[Path]) -> None:
    """Hugging Face's layout, a label beside; the second of its row groups is damaged."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": image.read_bytes(), "path": image.name} for image in images]
    table = pa.table({"image": pa.array(cells, struct), "weight": pa.array(range(len(images)))})
    pq.write_table(table, path, row_group_size=2, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)


def by_uri(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {row["uri"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_local_inputs_of_every_kind(tmp_path: Path, checkpoint: Path, call_job: CallJob) -> None:
    images = write_images(tmp_path / "raw", 14)
    (tmp_path / "dir").mkdir()
    for image in images[:2]:
        image.rename(tmp_path / "dir" / image.with_suffix(".jfif").name)
    write_tar(tmp_path / "s.tar.gz", images[2:5])
    write_table(tmp_path / "t.parquet", images[5:11])
    with serve() as web:
        web.answers["/w.jpg"] = [Answer(503), Answer(body=images[11].read_bytes())]
        (tmp_path / "web.jsonl").write_text(
            "".join(
                json.dumps({"url": web.url(path), "weight": n}) + "\n"
                for n, path in enumerate(["/w.jpg", "/gone.jpg"])
            )
        )
        with (tmp_path / "list.csv").open("w") as file:
            rows = [(f"raw/{images[12].name}", "a, b"), (images[13], "c"), (images[13], "again")]
            csv.writer(file).writerows([("path", "note"), *rows])
        names = ("dir", "s.tar.gz", "t.parquet", "web.jsonl", "list.csv")
        arguments: tuple[str | Path, ...] = (
            *(tmp_path / name for name in names),
            *("--output", tmp_path / "out", "--model", checkpoint, "--extensions", "jpg,jfif"),
            *("--keep", "cls,weight,note", "--allow-private-urls", "--max-failure-rate", "0.5"),
            *("--num-actors", "1"),
        )
        first = call_job("classify", *arguments)
        assert first.returncode == 0, first.stderr
        assert "14 images listed = 12 ok + 2 failed + 0 skipped" in first.stdout
        again = call_job("classify", *arguments)
        assert again.returncode == 0, again.stderr
        assert "nothing new: 14 images unchanged" in again.stdout
        assert web.count("/w.jpg") == 2

    found = by_uri(published_rows(tmp_path / "out"))
    kept = {
        uri.replace(f"{tmp_path}/", ""): (row["cls"], row["weight"], row["note"])
        for uri, row in found.items()
    }
    assert kept == {
        "dir/0000.jfif": (None, None, None),
        "dir/0001.jfif": (None, None, None),
        "s.tar.gz#train/0.jpg": ("0", None, None),
        "s.tar.gz#train/1.jpg": ("1", None, None),
        "s.tar.gz#train/1.jpg#2": ("2", None, None),
        **{f"t.parquet#{n}": (None, n, None) for n in (0, 1, 4, 5)},
        "t.parquet": (None, None, None),
        web.url("/w.jpg"): (None, 0, None),
        web.url("/gone.jpg"): (None, 1, None),
        "raw/0012.jpg": (None, None, "a, b"),
        "raw/0013.jpg": (None, None, "c"),
    }
    failed = {uri: row["error_code"] for uri, row in found.items() if row["error_code"]}
    assert failed == {f"{tmp_path}/t.parquet": "shard_corrupt", web.url("/gone.jpg"): "not_found"}
    assert "row group 1 of 3" in str(found[f"{tmp_path}/t.parquet"]["error_message"])


def test_shards_by_other_names_are_done_once(
    tmp_path: Path, checkpoint: Path, call_job: CallJob
) -> None:
    images = write_images(tmp_path / "raw", 4)
    write_tar(tmp_path / "shard.bin", images)
    (tmp_path / "notes.csv").write_bytes((tmp_path / "shard.bin").read_bytes())
    arguments: tuple[str | Path, ...] = (
        *(tmp_path / name for name in ("shard.bin", "notes.csv")),
        *("--input-format", "webdataset", "--output", tmp_path / "out", "--model", checkpoint),
    )
    first = call_job("classify", *arguments)
    assert first.returncode == 0, first.stderr
    assert "8 images listed = 8 ok + 0 failed + 0 skipped" in first.stdout
    again = call_job("classify", *arguments)
    assert again.returncode == 0, again.stderr
    assert "nothing new: 8 images unchanged" in again.stdout
    assert "vanished" not in again.stdout
    found = by_uri(published_rows(tmp_path / "out"))
    members = ("train/0.jpg", "train/1.jpg", "train/2.jpg", "train/2.jpg#2")
    shards = ("shard.bin", "notes.csv")
    assert set(found) == {f"{tmp_path}/{shard}#{name}" for shard in shards for name in members}


def test_inputs_of_every_kind_in_a_bucket(
    tmp_path: Path, checkpoint: Path, s3_bucket: Bucket, call_job: CallJob
) -> None:
    images = write_images(tmp_path / "raw", 10)
    write_tar(tmp_path / "s.tar", images[:3])
    pq.write_table(
        pa.table({"jpg": [image.read_bytes() for image in images[3:5]], "cls": ["x", "y"]}),
        tmp_path / "t.parquet",
    )
    for name in ("s.tar", "t.parquet"):
        s3_bucket.put(f"shards/{name}", (tmp_path / name).read_bytes())
    keys = ["far/a b+#1.jpg", "far/ü.jpg", "far/notes.txt", "lists/n.jpg"]
    etags = {}
    for key, image in zip(keys, images[5:9], strict=True):
        s3_bucket.put(key, image.read_bytes())
    etags = {item["Key"]: item["ETag"].strip('"') for item in s3_bucket.objects()}
    s3_bucket.put("lists/l.txt", f"n.jpg\n{s3_bucket.uri}/far/ü.jpg\n".encode())
    report = "".join(f'"{s3_bucket.name}","{key}","1","{etags[key]}"\n'
                     for key in keys[:1] + keys[2:3])  # fmt: skip
    escaped = report.replace("a b+#1", "a+b%2B%231").replace('"1"', '"1000"')
    s3_bucket.put("inv/data/0.csv.gz", gzip.compress(escaped.encode()))
    manifest = {
        "destinationBucket": f"arn:aws:s3:::{s3_bucket.name}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, ETag",
        "files": [{"key": "inv/data/0.csv.gz"}],
    }
    s3_bucket.put("inv/2026/manifest.json", json.dumps(manifest).encode())
    inputs = ("shards", "lists/*.txt", "inv/2026/manifest.json")
    done = call_job(
        "embed",
        *(f"{s3_bucket.uri}/{name}" for name in inputs),
        *("--output", tmp_path / "out", "--model", checkpoint, "--keep", "cls"),
    )
    assert done.returncode == 0, done.stderr
    found = by_uri(published_rows(tmp_path / "out"))
    assert {row["status"] for row in found.values()} == {"ok"}
    kept = {uri.replace(f"{s3_bucket.uri}/", ""): row["cls"] for uri, row in found.items()}
    assert kept == {
        "shards/s.tar#train/0.jpg": "0",
        "shards/s.tar#train/1.jpg": "1",
        "shards/s.tar#train/1.jpg#2": "2",
        "shards/t.parquet#0": "x",
        "shards/t.parquet#1": "y",
        "far/a b+#1.jpg": None,
        "far/ü.jpg": None,
        "lists/n.jpg": None,
    }
    reported = found[f"{s3_bucket.uri}/far/a b+#1.jpg"]
    assert reported["source_version"] == etags["far/a b+#1.jpg"]


def test_names_of_an_old_disk(tmp_path: Path, checkpoint: Path) -> None:
    """In Latin-1: of the INPUT itself, of the OUT inside it, and of images in a list. In a process
    of its own, whose arguments are bytes."""
    old = os.fsdecode(os.fsencode(tmp_path) + b"/B\xfccher")
    os.mkdir(old)
    for number, image in enumerate(write_images(tmp_path / "raw", 4)):
        os.replace(image, os.fsencode(old) + b"/k\xe4se%d.jpg" % number)
    with open(f"{old}/l.csv", "wb") as file:
        file.write(b"uri,note\nk\xe4se0.jpg,s\xfc\xdf\n")
    out = f"{old}/{os.fsdecode(b'o' + bytes([0xFC]) + b't')}"
    arguments = ("--output", out, "--model", checkpoint, "--keep", "note", "--exclude", "*e3.jpg")
    done = run_job("embed", f"{old}/l.csv", old, *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 images listed = 3 ok + 0 failed" in done.stdout
    assert "excluded: 1" in done.stdout
    again = run_job("embed", f"{old}/l.csv", old, *arguments, "--dry-run")
    assert [line.split()[0] for line in again.stdout.splitlines() if "unchanged" in line] == ["3"]
    (written,) = Path(out).glob("data/*/*.parquet")
    with written.open("rb") as file:  # Arrow itself cannot name it
        rows = pq.ParquetFile(file).read().to_pylist()
    found = {row["uri"]: row["note"] for row in rows}
    directory = f"{tmp_path}/B\\udcfccher"
    assert found == {
        f"{directory}/k\\udce4se0.jpg": r"s\udcfc\udcdf",
        f"{directory}/k\\udce4se1.jpg": None,
        f"{directory}/k\\udce4se2.jpg": None,
    }
