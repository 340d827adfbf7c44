"""How long the data files of a run take to become visible on S3: as uploads that are completed, as
a run does it, and as objects that are copied and removed, as on other stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

from pipeline.contract import layout
from pipeline.contract.errors import UsageError
from pipeline.output.staged import Uploads, show, stage
from pipeline.storage.objects.s3.uploads import Upload
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

MIB = 2**20


@dataclass(frozen=True)
class Shown:
    """What it took once."""

    seconds: float
    cpu_seconds: float
    """Of this process."""


def bench_publish(store: Store, files: int, mib: int, rounds: int) -> dict[str, Any]:
    """Both ways in turn, over as many files; what is staged is not timed.

    Raises:
        UsageError: the store takes no uploads in parts.
    """
    data = bytes(mib * MIB)
    completed, copied = [], []
    for number in range(rounds):
        completed.append(_complete(store, f"{number:08d}", files, data))
        copied.append(_copy(store, f"{number + rounds:08d}", files, data))
    pairs = zip(completed, copied, strict=True)
    ratio = median(copy.seconds / complete.seconds for complete, copy in pairs)
    return {
        "files": files,
        "mib": mib,
        "completed": [asdict(one) for one in completed],
        "copied": [asdict(one) for one in copied],
        "ratio": round(ratio, 1),
    }


def _complete(store: Store, run_id: str, files: int, data: bytes) -> Shown:
    def staged(name: str) -> tuple[str, Upload]:
        upload = stage(store, name, f"aside/{name}", lambda file: file.write(data))
        if upload is None:
            raise UsageError(f"{store.uri} takes no uploads in parts; name one on S3")
        return name, upload

    uploads = Uploads(dict(map_ahead(staged, _names(run_id, files))))
    return _timed(store, run_id, files, partial(show, store, list(uploads.files), uploads))


def _copy(store: Store, run_id: str, files: int, data: bytes) -> Shown:
    aside = layout.publish_data_dir(run_id, "attempt")
    names = [layout.data_file(number) for number in range(files)]
    for _ in map_ahead(lambda name: store.write_bytes(f"{aside}/{name}", data), names):
        pass
    move = partial(store.move, aside, layout.data_dir(run_id), names)
    return _timed(store, run_id, files, move)


def _names(run_id: str, files: int) -> list[str]:
    return [f"{layout.data_dir(run_id)}/{layout.data_file(number)}" for number in range(files)]


def _timed(store: Store, run_id: str, files: int, publish: Callable[[], None]) -> Shown:
    started, cpu = time.perf_counter(), time.process_time()
    publish()
    took = Shown(round(time.perf_counter() - started, 3), round(time.process_time() - cpu, 3))
    if list(store.list(layout.data_dir(run_id))) != _names(run_id, files):
        raise RuntimeError("not all files are there")
    return took
