"""What tests want of a container of Azure or a bucket of Google, through these stores' clients."""

import subprocess
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import fsspec.config
import pytest

from tests.support import needs
from tests.support.processes import process
from tests.support.servers.fault_proxy import FaultProxy


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
    start_seconds: float
    """In which it has to answer."""
    log: Path
    _port: int
    _process: subprocess.Popen[bytes]

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
    def endpoint(self) -> str:
        """Its address, such as ``http://127.0.0.1:10000``."""
        return f"http://127.0.0.1:{self._port}"

    @abstractmethod
    def env(self, endpoint: str | None = None) -> dict[str, str]:
        """The environment in which clients talk to this server, or to a proxy before it."""

    def enter_environment(self, patch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
        """Let the scheme lead to this server, or to a proxy before it."""
        for name, value in self.env(endpoint).items():
            patch.setenv(name, value)
        if self.token:
            patch.setitem(fsspec.config.conf, self.scheme, {"token": self.token})
        # An instance keeps the endpoint that it was made with, such as an earlier test's proxy.
        fsspec.get_filesystem_class(self.scheme).clear_instance_cache()

    @abstractmethod
    def create(self) -> Container:
        """Create a container under a random name."""

    def wait_until(self, ask: Callable[[], object], error: type[Exception]) -> None:
        """Ask it until that raises no such error any more.

        Raises:
            RuntimeError: it has ended, or does not answer in time; with the end of its log.
        """
        give_up = time.monotonic() + self.start_seconds
        while True:
            try:
                ask()
                return
            except error as last:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    raise RuntimeError(f"{last}\n{process.log_tail(self.log)}") from last
            time.sleep(0.1)


@contextmanager
def proxy_before(cloud: Cloud, patch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy, which the scheme of the server leads to from now on."""
    with FaultProxy(cloud.endpoint) as proxy:
        cloud.enter_environment(patch, proxy.endpoint)
        yield proxy
