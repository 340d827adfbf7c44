"""What a reader finds in an output, on a local disk or in a bucket, and whether it is whole."""

import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tests.support.servers.clouds import Container
from tests.support.servers.seaweedfs import Bucket


class Output(Protocol):
    """The files of an output, by their names below it."""

    @property
    def uri(self) -> str: ...

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class LocalOutput:
    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True)
class BucketOutput:
    bucket: Bucket | Container
    prefix: str = "out"

    @property
    def uri(self) -> str:
        return f"{self.bucket.uri}/{self.prefix}"

    def names(self) -> list[str]:
        keys = self.bucket.keys(f"{self.prefix}/")
        return [key.removeprefix(f"{self.prefix}/") for key in keys]

    def read(self, name: str) -> bytes:
        return self.bucket.get(f"{self.prefix}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self.bucket.put(f"{self.prefix}/{name}", data)


def find(output: Output, pattern: str) -> list[str]:
    """The names that begin with ``pattern``, a regular expression."""
    return [name for name in output.names() if re.match(pattern, name)]


def parts(output: Output) -> list[str]:
    """What an open run has committed."""
    return find(output, r"_open/[^/]+/parts/[^.]+\.parquet$")


def published(output: Output) -> Counter[str]:
    """How many rows each uri has below data/."""
    counts: Counter[str] = Counter()
    for name in find(output, r"data/"):
        counts.update(pq.read_table(io.BytesIO(output.read(name)))["uri"].to_pylist())
    return counts


def manifests(output: Output) -> list[dict[str, Any]]:
    """Those of the closed runs, oldest first."""
    return [json.loads(output.read(name)) for name in find(output, r"runs/[^/]+/manifest\.json")]


def check_no_open_run_is_visible(output: Output) -> None:
    """Whatever stands below data/ belongs to a run whose books are closed."""
    names = output.names()
    for name in names:
        if name.startswith("data/"):
            run_id = name.removeprefix("data/run=").split("/")[0]
            closed = f"_open/{run_id}/publish/manifest.json", f"runs/{run_id}/manifest.json"
            assert set(closed) & set(names), name


def check_closed(output: Output, images: int) -> dict[str, Any]:
    """Every image has exactly one row, the books say so, and nothing is left over; the manifest
    of the run that computed last."""
    rows = published(output)
    assert len(rows) == images, "rows lost"
    assert set(rows.values()) == {1}, "rows repeated"
    assert not find(output, "_"), "a closed run leaves no staging and no lease behind"
    closed = manifests(output)
    assert sum(m["counts"]["ok"] + m["counts"]["failed"] for m in closed) == images
    for manifest in closed:
        counts = manifest["counts"]
        assert counts["listed"] == counts["ok"] + counts["failed"] + counts["skipped"] == images
        assert sum(f["rows"] for f in manifest["files"]) == counts["ok"] + counts["failed"]
    assert json.loads(output.read("latest.json"))["run_id"] == closed[-1]["run_id"]
    return [manifest for manifest in closed if manifest["files"]][-1]


def published_rows(output: Path) -> list[dict[str, object]]:
    """Every row below data/, as a reader without any knowledge of runs sees them."""
    rows: list[dict[str, object]] = ds.dataset(output / "data").to_table().to_pylist()
    return rows
