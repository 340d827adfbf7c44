"""Where a checkpoint's files come from: a local directory, an fsspec URI or the hub."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import fsspec

from cvt.errors import CheckpointError

Source: TypeAlias = str | os.PathLike[str]
Fetch: TypeAlias = Callable[[str], Path | None]
"""Returns the local path of one of the checkpoint's files, None if there is no such file."""

FILE_SUFFIXES: Final = frozenset({".safetensors", ".bin", ".pth", ".pt", ".h5", ".json"})
_USERINFO = re.compile(r"(?<=https)://[^/@]*@|(?<=http)://[^/@]*@|://[^@]*:[^@]*@")
HUB_SECONDS: Final = 1.5
"""For the hub's first answer; after that, what its cache has must do."""
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def display(source: Source) -> str:
    """The source as it may appear in a message: without a URL's query and what stands in front of
    its host, which can hold secrets."""
    return _USERINFO.sub("://", os.fspath(source).split("?")[0])


@contextmanager
def open_source(source: Source, revision: str | None = None) -> Iterator[tuple[Fetch, str | None]]:
    """Yield a way to fetch files of one directory, and the name of the one that is meant.

    The name is None when the source is a directory or a hub name. What is downloaded lives as long
    as the context.

    Raises:
        CheckpointError: the source does not exist or, on fetching, cannot be read.
    """
    text = _without_scheme(os.fspath(source))
    if "://" in text:
        with TemporaryDirectory(prefix="cvt-") as folder:
            parent, name = _split(text)
            yield _remote(parent, Path(folder)), name
    elif (path := Path(text).expanduser()).exists():
        is_file = path.is_file()
        yield _local(path, is_file=is_file), path.name if is_file else None
    elif _HUB_NAME.fullmatch(text):
        yield _hub(text, revision), None
    else:
        raise CheckpointError(f"{text} is neither an existing path nor a hub name (owner/model)")


def _without_scheme(text: str) -> str:
    """A file:// URI of something that is there as its path, so that links are minded there too."""
    scheme, separator, path = text.partition("://")
    return path if separator and scheme in ("file", "local") and Path(path).exists() else text


def _split(uri: str) -> tuple[str, str | None]:
    """The directory of a URI and its file name; None without a suffix, which means a directory."""
    head, _, tail = uri.rstrip("/").rpartition("/")
    is_file = Path(tail.split("?")[0]).suffix in FILE_SUFFIXES
    return (head, tail) if is_file else (uri.rstrip("/"), None)


def _local(path: Path, *, is_file: bool) -> Fetch:
    """Files of one directory. A link is followed within it; the file that is meant, anywhere."""
    folder = path.parent if is_file else path
    home = folder.resolve()

    def fetch(name: str) -> Path | None:
        found = folder / name
        if not found.is_file():
            return None
        if not (is_file and name == path.name) and not _is_within(found.resolve(), home):
            raise CheckpointError(
                f"{found} leads out of the model's directory and is not followed: copy the file"
            )
        return found

    return fetch


def _is_within(file: Path, home: Path) -> bool:
    """Below ``home``, or among the blobs that the hub's cache keeps beside its snapshots."""
    if file.is_relative_to(home):
        return True
    repository = home.parent.parent
    is_snapshot = home.parent.name == "snapshots" and repository.name.startswith("models--")
    return is_snapshot and file.parent == repository / "blobs"


def _remote(parent: str, folder: Path) -> Fetch:
    def fetch(name: str) -> Path | None:
        uri, path = f"{parent}/{name}", folder / name.split("?")[0]
        try:
            filesystem, key = fsspec.core.url_to_fs(uri)
            filesystem.get_file(key, str(path))
        except FileNotFoundError:
            return None
        except Exception as error:  # each backend raises its own classes
            raise CheckpointError(f"{display(uri)} cannot be read: {_reason(error)}") from error
        return path

    return fetch


def _hub(repository: str, revision: str | None) -> Fetch:
    """Files of a hub repository, through huggingface_hub's cache and its environment variables."""
    try:
        from huggingface_hub import get_session, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise CheckpointError(
            f"{repository} is not a local path, and reading the Hugging Face hub needs a package: "
            "pip install huggingface_hub"
        ) from error

    @cache
    def trouble() -> str | None:
        url = hf_hub_url(repository, "config.json", revision=revision)
        return _trouble(partial(get_session().head, url, timeout=HUB_SECONDS))

    def fetch(name: str) -> Path | None:
        try:
            # Left to itself, the hub's client tries for half a minute before it looks into its
            # cache, and says so at length.
            is_away = trouble() is not None
            found = hf_hub_download(repository, name, revision=revision, local_files_only=is_away)
            return Path(found)
        except EntryNotFoundError as error:
            # Offline, an absent format is normal; every checkpoint has its config.json.
            if name == "config.json" and isinstance(error, LocalEntryNotFoundError):
                raise CheckpointError(
                    f"{repository} is not in the local cache, and the hub cannot be reached: "
                    f"{trouble() or _reason(error)}"
                ) from error
            return None
        except (OSError, HFValidationError) as error:
            raise CheckpointError(
                f"{repository} is neither a local path nor readable on the hub: {_reason(error)}"
            ) from error

    return fetch


def _trouble(ask: Callable[[], object]) -> str | None:
    """What keeps the hub from answering within HUB_SECONDS, None if nothing does."""
    answers: list[str | None] = []

    def wait() -> None:
        try:
            status = getattr(ask(), "status_code", 200)
        except Exception as error:  # noqa: BLE001  # each version of the client raises its own classes
            answers.append(_reason(error))
        else:
            answers.append(f"it answers {status}" if status in _BUSY else None)

    # The time that a name server takes is in no client's timeout.
    asking = threading.Thread(target=wait, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    return answers[0] if answers else f"no answer within {HUB_SECONDS} s"


def _reason(error: Exception) -> str:
    """The first line of an error, or its class if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
