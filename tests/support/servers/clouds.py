"""What tests want of a container of Azure or a bucket of Google, through these stores' clients."""

from abc import abstractmethod
from pathlib import Path
from typing import Self

import fsspec.config
import pytest

from tests.support import needs
from tests.support.processes import process


class Container:
    """A container or a bucket of a server."""

    uri: str
    """Without a slash at the end."""

    @abstractmethod
    def put(self, key: str, body: bytes) -> str:
        """Write an object and return its uri."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's bytes."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object."""

    @abstractmethod
    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below ``prefix``."""

    def put_tree(self, directory: Path, prefix: str = "") -> None:
        """Write every file below ``directory`` under its relative path."""
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.put(prefix + path.relative_to(directory).as_posix(), path.read_bytes())


class Cloud:
    """A server of one kind of container, as a context manager: ready inside, gone after."""

    scheme: str
    token: str | None = None
    """What fsspec is told of the credentials."""
    log: Path

    def __enter__(self) -> Self:
        needs.demand("server")
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Return when it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Remove it and its files."""

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Its address, such as ``http://127.0.0.1:10000``."""

    @abstractmethod
    def env(self, endpoint: str | None = None) -> dict[str, str]:
        """The environment in which clients talk to this server, or to a proxy before it."""

    def enter_environment(self, patch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
        """Let the scheme lead to this server, or to a proxy before it."""
        for name, value in self.env(endpoint).items():
            patch.setenv(name, value)
        if self.token:
            patch.setitem(fsspec.config.conf, self.scheme, {"token": self.token})

    @abstractmethod
    def create(self) -> Container:
        """Create a container under a random name."""

    def fail(self, error: BaseException) -> RuntimeError:
        """What to raise when it does not start."""
        return RuntimeError(f"{error}\n{process.log_tail(self.log)}")
