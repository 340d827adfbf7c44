"""Reading a shard or a list in a process that may take only so much more memory than it has."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MORE_MIB = 700
"""Beside what is imported; more than windows, buffers and the stacks of threads take."""

_PROGRAM = """
import json, resource, sys
import pyarrow as pa
from pipeline.contract.schema import WORK
from pipeline.contract.spec import InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import ReadOptions
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns

uri, kind, keep, max_bytes, more = json.loads(sys.argv[1])
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))
spec = InputSpec(uris=(uri,), keep=tuple(keep), max_bytes=max_bytes)
kept = kept_columns(spec)
found = {}
if kind == "listing":
    for table in inventory(spec, kept=kept):
        found["rows"] = found.get("rows", 0) + len(table)
else:
    row = {"uri": uri, "kind": kind, "source_version": "v", "size_bytes": None, "_done": None}
    work = pa.Table.from_pylist([row], schema=WORK)
    for item in fetch_items(work, max_bytes, ReadOptions.of(spec, kept)):
        code = item.error.code if item.error else "ok"
        found[code] = found.get(code, 0) + 1
print(json.dumps(found))
"""


def read_limited(
    uri: Path,
    kind: str,
    *,
    keep: tuple[str, ...] = (),
    max_bytes: int = 10**7,
    more_mib: int = MORE_MIB,
    timeout: float = 200,
) -> dict[str, int]:
    """How many images a shard yields, by error code; or, of the kind ``listing``, how many rows."""
    arguments: list[Any] = [str(uri), kind, keep, max_bytes, more_mib * 2**20]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found
