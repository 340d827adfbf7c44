"""A process that ends between two changes of the storage."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.storage.store import Store


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, store: Store) -> Iterator[list[str]]:
    """Every change of the storage is a step; the one after ``steps`` of them never happens."""
    done: list[str] = []

    def guard(owner: object, name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if len(done) == steps:
                raise KilledError
            done.append(f"{name} {args[0]}")
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        if store.is_local:
            for name in ("replace", "unlink", "rename", "rmdir"):
                patch.setattr(os, name, guard(os, name))
        else:
            for name in ("cp_file", "rm_file", "pipe_file"):
                patch.setattr(store.fs, name, guard(store.fs, name))
        yield done
