"""How this process reaches Azure's storage accounts: adlfs finds the address and the credentials.

AZURE_STORAGE_* variables and fsspec's configuration (FSSPEC_ABFS_*, ~/.config/fsspec) say which
account and how: a connection string, a key, a SAS token, a service principal; without any of them
azure-identity asks the machine (workload identity, managed identity, az login).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import fsspec.config

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.objects.connection import READ_SECONDS, RefusedCredentialsError
from pipeline.storage.retry import BadCredentialsError

VERSION = "2021-12-02"
"""Of the interface; newer than all that is used of it."""
_HOST = re.compile(
    r"(?i)[a-z0-9-]+(\.z\d+)?\.(dfs|blob)\.(core|storage)\."
    r"(windows\.net|azure\.net|chinacloudapi\.cn|usgovcloudapi\.net|cloudapi\.de)"
)
_SCOPE = "https://storage.azure.com/.default"
_FRESH_SECONDS = 300
"""A token is replaced so long before it expires."""
_SIGNED = ("content-encoding", "content-language", "content-length", "content-md5", "content-type",
           "date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since",
           "range")  # fmt: skip


class Token:
    """An access token of Microsoft Entra, renewed when it is about to expire."""

    def __init__(self, credential: Any) -> None:
        self._credential = credential
        self._token: Any = None
        self._lock = threading.Lock()

    def text(self) -> str:
        """Valid for minutes.

        Raises:
            RefusedCredentialsError: nobody here has credentials, or they are refused.
        """
        from azure.core.exceptions import AzureError

        with self._lock:
            if self._token is None or self._token.expires_on < time.time() + _FRESH_SECONDS:
                try:
                    self._token = self._credential.get_token(_SCOPE)
                except AzureError as error:
                    text = f"no Azure credentials: {one_line(error)}"
                    raise RefusedCredentialsError(BadCredentialsError(text)) from error
            return str(self._token.token)


@dataclass(frozen=True)
class Account:
    """A storage account: where it is, and what makes it take a request."""

    name: str
    url: str
    """Without a slash at the end."""
    key: str = field(default="", repr=False)
    sas: str = field(default="", repr=False)
    """A query string."""
    token: Token | None = field(default=None, repr=False)
    read_seconds: float = READ_SECONDS

    def locate(self, target: str, parameters: Mapping[str, str]) -> str:
        """The URL of a quoted target, a SAS token included."""
        query = "&".join(filter(None, [urlencode(parameters), self.sas]))
        return f"{self.url}/{target}{'?' if query else ''}{query}"

    def authorised(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, and those that let the request in."""
        headers = {**headers, "x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True)}
        if self.key:
            signature = self._signature(method, url, headers)
            headers["Authorization"] = f"SharedKey {self.name}:{signature}"
        elif self.token:
            headers["Authorization"] = f"Bearer {self.token.text()}"
        return headers

    def _signature(self, method: str, url: str, headers: Mapping[str, str]) -> str:
        """Of Azure's Shared Key: an HMAC of the method, the headers, the path and the query."""
        lower = {name.lower(): value for name, value in headers.items()}
        if lower.get("content-length") == "0":
            del lower["content-length"]
        target = url.split("/", 3)[3]  # not parsed, for that would resolve dots in a key
        path, _, query = target.partition("?")
        lines = [method, *(lower.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{lower[name]}" for name in sorted(lower) if name.startswith("x-ms-")]
        lines += [f"/{self.name}/{path}"]
        parameters = sorted(parse_qsl(query, keep_blank_values=True))
        lines += [f"{name.lower()}:{value}" for name, value in parameters]
        text = "\n".join(lines).encode()
        digest = hmac.new(base64.b64decode(self.key), text, hashlib.sha256).digest()
        return base64.b64encode(digest).decode()


_resolved: dict[tuple[object, ...], Account] = {}
_lock = threading.Lock()


def account(host: str) -> Account:
    """The account of a host that a URI names, or the one of the environment, as that is now.

    Raises:
        UsageError: none is named anywhere, the connection string is another one's, or the host is
            not Azure's: nobody else may see what the credentials say.
    """
    if host and not _HOST.fullmatch(host):
        raise UsageError(f"{host} is not the host of an Azure account")
    variables = sorted(item for item in os.environ.items() if item[0].startswith("AZURE_"))
    configured = [fsspec.config.conf.get(protocol) for protocol in ("abfs", "az", "abfss")]
    key = (host, repr(configured), *variables)
    with _lock:
        if key not in _resolved:
            _resolved[key] = _resolve(host)
        return _resolved[key]


def _resolve(host: str) -> Account:
    from adlfs import AzureBlobFileSystem

    name = host.partition(".")[0]
    named = {"account_name": name, "account_host": host.replace(".dfs.", ".blob.", 1)}
    try:
        found = AzureBlobFileSystem(skip_instance_cache=True, **(named if host else {}))
    except ValueError as error:
        raise UsageError(
            f"cannot reach Azure: {one_line(error)}; set AZURE_STORAGE_ACCOUNT_NAME, or "
            "AZURE_STORAGE_CONNECTION_STRING"
        ) from error
    client = found.service_client
    if host and client.account_name != name:
        raise UsageError(
            f"the URI is of the account {name}, and AZURE_STORAGE_CONNECTION_STRING of "
            f"{client.account_name}; set the connection string of {name}, or unset it"
        )
    url = urlsplit(client.url)
    return Account(
        name=client.account_name or "",
        url=f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}",
        key=getattr(client.credential, "account_key", ""),
        sas=url.query,
        token=Token(found.sync_credential) if found.sync_credential else None,
        read_seconds=found._timeout_kwargs.get("read_timeout", READ_SECONDS),
    )
