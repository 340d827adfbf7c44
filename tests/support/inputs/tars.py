"""Tars of given members, and what is fetched from them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.sources.formats.item import Item
from tests.support.inputs.fetching import MIB, code, fetch

MEMBERS = {f"{n:02d}.jpg": bytes([n]) * (n * 311 % 2000) for n in range(12)}


def tar_bytes(
    members: Iterable[tuple[str, bytes]] | dict[str, bytes] = MEMBERS,
    format: int = tarfile.USTAR_FORMAT,
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            add(tar, name, data)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def shard(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read(uri: str, *, done: Iterable[str] = (), max_bytes: int = MIB) -> list[Item]:
    """The items of a shard; what holds for every shard is checked here."""
    items = fetch(uri, kind="webdataset", _done=list(done), size_bytes=7, max_bytes=max_bytes)
    assert all(item.shard == uri for item in items)
    assert all(item.source_version == "v" for item in items)
    uris = [item.uri for item in items]
    assert len(set(uris)) == len(uris)
    assert [item.shard_rows for item in items[:-1]] == [None] * (len(items) - 1)
    if items:
        assert items[-1].shard_rows == len(items) + len(list(done))
    return items


def content(items: list[Item], uri: str) -> dict[str, bytes]:
    return {i.uri.removeprefix(f"{uri}#"): i.data for i in items if i.data is not None}


def failures(items: list[Item]) -> list[tuple[str, str | None]]:
    return [(item.uri, code(item)) for item in items if item.error is not None]
