"""Wheels unpacked, rid of what no job reads, and packed again."""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

LEFT_OUT: Final = (
    "ray/jars/",
    "ray/rllib/",
    "ray/serve/",
    "ray/llm/",
    "ray/dashboard/client/",
    "ray/cpp/",
    "ray/include/",
)
"""Folders that no job imports."""
BOTOCORE_SERVICES: Final = ("s3", "sts")
"""Of which botocore's description is kept, beside its files about endpoints."""


def unpack(wheels: Iterable[Path], site: Path) -> Counter[str]:
    """Unpack what is wanted of the wheels into a folder for PYTHONPATH.

    Returns:
        Bytes left out, by folder.
    """
    left_out: Counter[str] = Counter()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                folder = unwanted(member.filename)
                if folder is None:
                    _extract(archive, member, site)
                else:
                    left_out[folder] += member.file_size
    return left_out


def unwanted(name: str) -> str | None:
    """The folder for which a wheel's file is left out; None for a file that is wanted."""
    for folder in LEFT_OUT:
        if name.startswith(folder):
            return folder.rstrip("/")
    parts = PurePosixPath(name).parts
    if parts[:2] == ("botocore", "data") and len(parts) > 3 and parts[2] not in BOTOCORE_SERVICES:
        return "botocore/data (other services)"
    if len(parts) > 2 and parts[0].endswith(".data") and parts[1] in ("scripts", "headers", "data"):
        return f"{parts[0].split('-')[0]} ({parts[1]})"
    return None


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, site: Path) -> None:
    """Write a file where an installer would, and let programs be executable, such as Ray's own."""
    parts = PurePosixPath(member.filename).parts
    if parts[0].endswith(".data"):  # purelib or platlib
        member.filename = "/".join(parts[2:])
    path = Path(archive.extract(member, site))
    path.chmod(0o755 if (member.external_attr >> 16) & 0o111 else 0o644)


def unpacked_bytes(site: Path) -> int:
    """What the files of a folder take."""
    return sum(path.stat().st_size for path in site.rglob("*") if path.is_file())


def write_archive(site: Path, output: Path) -> None:
    """Pack a folder into a tar.xz; the same files give the same bytes."""
    files = [path for path in site.rglob("*") if path.is_file()]
    # Like stands beside like, which xz rewards.
    files.sort(key=lambda path: (path.suffix, path.relative_to(site).as_posix()))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(output, "w:xz", preset=6) as archive:
        for path in files:
            archive.add(path, path.relative_to(site).as_posix(), filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
