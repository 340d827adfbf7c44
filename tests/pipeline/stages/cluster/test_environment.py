"""A Ray of our own changes nothing for the user's next one."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from pipeline.stages.cluster.environment import (
    TOKENS,
    environment_as_found,
    read_again,
    use_own_token,
)

raylet: Any = import_module("ray._raylet")


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Somebody who has said nothing to Ray."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", *TOKENS):
        monkeypatch.delenv(name, raising=False)
    read_again()
    yield
    monkeypatch.undo()  # all of the test's, too, or a Ray that is alive here loses its token
    read_again()


def ray_has_a_token() -> bool:
    return bool(raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def test_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    before = dict(os.environ)
    with environment_as_found():
        use_own_token()
        assert ray_has_a_token()
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": "local", "PYTHONBREAKPOINT": "x"}
    assert os.environ == before
    assert not ray_has_a_token()
    assert not is_token_auth_enabled()


def test_every_session_has_a_token_of_its_own() -> None:
    seen = set()
    for _ in range(2):
        with environment_as_found():
            use_own_token()
            seen.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(seen) == 2


@pytest.mark.parametrize("name", TOKENS)
def test_the_users_token_is_respected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("theirs")
    monkeypatch.setenv(name, "theirs" if name == "RAY_AUTH_TOKEN" else str(tmp_path / "token"))
    before = dict(os.environ)
    use_own_token()
    assert os.environ == before
    assert ray_has_a_token()
