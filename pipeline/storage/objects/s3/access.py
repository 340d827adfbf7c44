"""How this process reaches S3: one resolution for listing and reading and for writing (s3fs).

Endpoint, region and credentials come from where every AWS client takes them: AWS_* variables, a
profile (AWS_PROFILE, in ~/.aws/config and ~/.aws/credentials), the machine's role; botocore finds
and refreshes them. fsspec's configuration (FSSPEC_S3_*, ~/.config/fsspec) takes precedence.

    another region     taken from S3's answer; it must be set only for stores other than AWS that
                       check it
    public buckets     requests go unsigned where no credentials are found; with FSSPEC_S3_ANON=true
                       they always do, with FSSPEC_S3_ANON=false never
    requester pays     FSSPEC_S3_REQUESTER_PAYS=true agrees to be charged
    slow stores        FSSPEC_S3='{"config_kwargs": {"read_timeout": 60}}' waits longer for a byte
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import fsspec.config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from pipeline.contract.errors import UsageError, one_line

CONNECT_SECONDS = 10
READ_SECONDS = 10
"""After so long without a single byte, the read of an object is given up and retried."""
LIST_SECONDS = 30
"""The same for other requests: a page of a listing takes longer than an object."""

_STATIC = ("shared-credentials-file", "config-file")
"""botocore's names for keys that are written in a profile and do not expire."""
_NO = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Access:
    """What botocore and fsspec's configuration say about S3."""

    session: Session = field(repr=False)
    endpoint: str | None
    """Where s3:// leads, None for AWS itself."""
    region: str | None
    is_signed: bool
    requester_pays: bool
    read_seconds: float

    @property
    def credentials(self) -> Credentials:
        """Refreshed if they are temporary."""
        return self.session.get_credentials()

    def settings(self) -> dict[str, str]:
        """Endpoint, region, and keys written in a profile, as AWS's variables.

        Credentials that expire (roles, SSO) are left out: a copy cannot be refreshed.
        """
        found = {"AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_DEFAULT_REGION": self.region}
        credentials = self.credentials if self.is_signed else None
        if credentials is not None and credentials.method in _STATIC:
            found |= {
                "AWS_ACCESS_KEY_ID": credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
                "AWS_SESSION_TOKEN": credentials.token,
            }
        return {name: value for name, value in found.items() if value}

    def s3fs_options(self) -> dict[str, Any]:
        """What s3fs has to be told beyond its own configuration."""
        config = _config()
        client = {"region_name": self.region} if self.region else {}
        timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": LIST_SECONDS}
        retries = {"retries": {"max_attempts": 4, "mode": "standard"}}
        return {
            "anon": not self.is_signed,
            "endpoint_url": self.endpoint,
            "requester_pays": self.requester_pays,
            "client_kwargs": config.get("client_kwargs", {}) | client,
            "config_kwargs": timeouts | retries | config.get("config_kwargs", {}),
            # A listing cached before the run would hide what has arrived since.
            "use_listings_cache": False,
        }


_resolved: dict[tuple[object, ...], Access] = {}
_lock = threading.Lock()


def access() -> Access:
    """How to reach S3, as the environment is now.

    Raises:
        UsageError: AWS_PROFILE names an unknown profile, or requests are to be signed and there
            are no credentials.
    """
    key = _key()
    with _lock:
        if key not in _resolved:
            _resolved[key] = _resolve(_config())
        return _resolved[key]


def portable_settings() -> dict[str, str]:
    """What a profile of this machine says, as variables for machines that do not have it.

    They leave out credentials that expire: a worker gets and refreshes its own, from its role or
    from a profile of the same name.
    """
    is_needed = _key() in _resolved or "AWS_PROFILE" in os.environ
    return access().settings() if is_needed and "profile" not in _config() else {}


def is_signed_here() -> bool | None:
    """Whether requests are signed; None if S3 has not been used yet."""
    known = _resolved.get(_key())
    return None if known is None else known.is_signed


def _key() -> tuple[object, ...]:
    """All that the resolution depends on."""
    variables = [item for item in os.environ.items() if item[0].startswith("AWS_")]
    return (repr(_config()), *sorted(variables))


def _config() -> dict[str, Any]:
    """What fsspec is told about S3."""
    config: dict[str, Any] = fsspec.config.conf.get("s3", {})
    return config


def _resolve(config: dict[str, Any]) -> Access:
    session = Session(profile=config.get("profile"))
    try:
        endpoint = config.get("endpoint_url") or _configured_endpoint(session)
        is_signed = _is_signed(session, config)
    except BotoCoreError as error:
        raise UsageError(
            f"cannot configure S3 on {socket.gethostname()}: {one_line(error)}; check AWS_PROFILE "
            "and ~/.aws there, or set AWS_* variables"
        ) from error
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return Access(
        session=session,
        endpoint=endpoint,
        region=region,
        is_signed=is_signed,
        requester_pays=_is_on(config.get("requester_pays")),
        read_seconds=config.get("config_kwargs", {}).get("read_timeout", READ_SECONDS),
    )


def _configured_endpoint(session: Session) -> str | None:
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    provider = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3")
    endpoint: str | None = provider.provide()
    return endpoint


def _is_signed(session: Session, config: dict[str, Any]) -> bool:
    if _is_on(config.get("anon")):
        return False
    if config.get("key"):
        session.set_credentials(config["key"], config.get("secret"), config.get("token"))
    if session.get_credentials() is not None:
        return True
    if "anon" in config:
        raise UsageError(
            f"no AWS credentials found on {socket.gethostname()}; set AWS_* variables, or give "
            "the machine a role"
        )
    return False


def _is_on(value: Any) -> bool:
    """Whether a switch in fsspec's configuration is on; from environment variables, fsspec parses
    numbers and booleans and keeps other words as they are."""
    return str(value).lower() not in _NO if value is not None else False
