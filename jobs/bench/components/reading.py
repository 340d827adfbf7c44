"""What it costs to read whole objects: as a run does it, and through fsspec's own filesystems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import fsspec

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.inventory import inventory
from pipeline.storage.files import read_bytes
from pipeline.storage.read_ahead import THREADS, Hold, read_all_ahead
from pipeline.storage.uris import split_uri

Way = Callable[[list[str]], Iterable[bytes]]


def bench_reading(source: str, rounds: int) -> dict[str, float]:
    """CPU milliseconds of this process for each object below an object store's URI, by the way to
    read it, ``THREADS`` at a time; medians of rounds in turn.

    Raises:
        UsageError: it is not an object store's.
    """
    protocol, _ = split_uri(source)
    if protocol in ("file", "http", "https"):
        raise UsageError(f"{source} is not in an object store; give a URI such as az://photos/2026")
    tables = inventory(InputSpec(uris=(source,)))
    uris = [uri for table in tables for uri in table["uri"].to_pylist()]
    library = fsspec.filesystem(protocol)
    ways: dict[str, Way] = {
        "as a run does": _as_a_run,
        f"{type(library).__module__}, cat_file": partial(_at_a_time, _cat),
        f"{type(library).__module__}, open and read": partial(_at_a_time, _open_and_read),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            for _data in way(uris):
                pass
            spent[name].append((time.process_time() - started) / len(uris) * 1000)
    return {name: median(values) for name, values in spent.items()}


def _as_a_run(uris: list[str]) -> Iterable[bytes]:
    return read_all_ahead([partial(_read, uri) for uri in uris])


def _read(uri: str, hold: Hold) -> bytes:
    return read_bytes(uri, hold=hold)


def _at_a_time(read: Callable[[str], bytes], uris: list[str]) -> Iterable[bytes]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(read, uris)


def _cat(uri: str) -> bytes:
    protocol, path = split_uri(uri)
    data: bytes = fsspec.filesystem(protocol).cat_file(path)
    return data


def _open_and_read(uri: str) -> bytes:
    protocol, path = split_uri(uri)
    with fsspec.filesystem(protocol).open(path, "rb") as file:
        data: bytes = file.read()
    return data
