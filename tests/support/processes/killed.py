"""A process that ends between two changes of the storage."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline.storage.objects.s3 import requests, uploads
from pipeline.storage.store import Store


class KilledError(BaseException):
    """Stands for the end of the process."""


@contextmanager
def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, store: Store) -> Iterator[list[str]]:
    """Every change of the storage is a step; the one after ``steps`` of them never happens, nor
    does any later one, whichever thread takes it."""
    done: list[str] = []
    one_by_one = Lock()

    def note(step: str) -> None:
        with one_by_one:
            if len(done) >= steps:
                raise KilledError
            done.append(step)

    def guard(owner: object, name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            note(f"{name} {args[0]}")
            return real(*args, **kwargs)

        return step

    def guarded_answer(bucket: str, method: str, target: str, **kwargs: Any) -> Any:
        if method != "GET":
            note(f"{method} {bucket}/{unquote(target)}")
        return answer(bucket, method, target, **kwargs)

    answer = requests.answer
    with monkeypatch.context() as patch:
        if store.is_local:
            for name in ("replace", "unlink", "rename", "rmdir"):
                patch.setattr(os, name, guard(os, name))
        else:
            for name in ("cp_file", "rm_file", "pipe_file"):
                patch.setattr(store.fs, name, guard(store.fs, name))
            patch.setattr(uploads, "answer", guarded_answer)
        yield done
