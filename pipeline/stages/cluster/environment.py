"""What a Ray of our own is told through the environment, and how that is taken back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pipeline.storage.filesystems import change_environment

_raylet: Any = import_module("ray._raylet")  # its types are incomplete
PREFIX = "RAY_"
DEBUGGER = "PYTHONBREAKPOINT"
"""A variable that Ray sets: with it, ``breakpoint()`` would wait for Ray's own debugger."""
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables in which the user names a token for Ray."""


@contextmanager
def environment_as_found() -> Iterator[None]:
    """At the end Ray's variables are what they were, and Ray has read them again."""
    before = _settings()
    try:
        yield
    finally:
        if _settings() != before:
            for name in _settings().keys() - before.keys():
                del os.environ[name]
            change_environment(before)
            read_again()


def use_own_token() -> None:
    """Protect the Ray that this process starts next with a token that nobody else has, unless the
    user names one.

    Left to itself, Ray writes one to ~/.ray/auth_token, and from then on every ``ray start`` of the
    same user asks for it, which ``ray job submit`` does not send.
    """
    if not any(os.environ.get(name) for name in TOKENS):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    read_again()


def read_again() -> None:
    """Have Ray forget what it knows of its variables and of the token."""
    _raylet.Config.initialize("")
    _raylet.AuthenticationTokenLoader.instance().reset_cache()


def _settings() -> dict[str, str]:
    variables = os.environ.items()
    return {name: value for name, value in variables if name.startswith(PREFIX) or name == DEBUGGER}
