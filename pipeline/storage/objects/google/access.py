"""How this process reaches Google Cloud Storage: gcsfs finds the credentials and the project.

They come from where Google's clients take them: GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the
machine's service account; without any, requests go unsigned, which public buckets allow. fsspec's
configuration (FSSPEC_GS_*, ~/.config/fsspec) takes precedence:

    FSSPEC_GS_TOKEN             a key file, or anon
    FSSPEC_GS_REQUESTER_PAYS    true, or the project that agrees to be charged
    FSSPEC_GS_ENDPOINT_URL      another server, as STORAGE_EMULATOR_HOST
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import fsspec.config

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.objects.connection import READ_SECONDS, RefusedCredentialsError
from pipeline.storage.retry import BadCredentialsError, PassingError, StoreError

_PREFIXES = ("GOOGLE_", "GCSFS_", "STORAGE_EMULATOR_", "CLOUDSDK_")


@dataclass(frozen=True)
class Access:
    """Where the storage is, and what makes it take a request."""

    server: str
    """Without a slash at the end."""
    credentials: Any = field(repr=False)
    """gcsfs'; it renews them."""
    charged: str
    """The project that pays for requests, if it is not the bucket's."""
    read_seconds: float

    @property
    def is_known(self) -> bool:
        """Whether requests say who asks."""
        return self.credentials.credentials is not None

    def url(self, path: str, parameters: dict[str, str]) -> str:
        """The URL of a path that is already quoted."""
        if self.charged:
            parameters = parameters | {"userProject": self.charged}
        return f"{self.server}/{path}{'?' if parameters else ''}{urlencode(parameters)}"

    def headers(self) -> dict[str, str]:
        """What lets a request in.

        Raises:
            RefusedCredentialsError: the credentials cannot be renewed.
            StoreError: nobody answers who could renew them.
        """
        from gcsfs.retry import HttpError, NonRetryableError
        from google.auth.exceptions import GoogleAuthError, TransportError

        headers: dict[str, str] = {}
        try:
            self.credentials.apply(headers)
        except (TransportError, OSError) as error:
            raise StoreError(PassingError("storage_error", one_line(error))) from error
        except (GoogleAuthError, HttpError, NonRetryableError) as error:
            reason = one_line(error.__cause__ or error)
            text = f"Google's credentials cannot be renewed: {reason}"
            raise RefusedCredentialsError(BadCredentialsError(text)) from error
        return headers


_resolved: dict[tuple[object, ...], Access] = {}
_lock = threading.Lock()


def access() -> Access:
    """How to reach the storage, as the environment is now.

    Raises:
        UsageError: the configured credentials cannot be used.
    """
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_PREFIXES))
    key = (repr([fsspec.config.conf.get(protocol) for protocol in ("gs", "gcs")]), *variables)
    with _lock:
        if key not in _resolved:
            _resolved[key] = _resolve()
        return _resolved[key]


def _resolve() -> Access:
    # Or gcsfs asks for each bucket whether it has a hierarchy, through a client of its own.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    from gcsfs.core import GCSFileSystem
    from google.auth.exceptions import GoogleAuthError

    try:
        found = GCSFileSystem(skip_instance_cache=True)
    except (ValueError, OSError, GoogleAuthError) as error:
        raise UsageError(
            f"cannot use Google's credentials: {one_line(error)}; set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file, or FSSPEC_GS_TOKEN"
        ) from error
    return Access(
        server=found._location.rstrip("/"),
        credentials=found.credentials,
        charged=found._get_params({}).get("userProject") or "",
        read_seconds=found.requests_timeout or READ_SECONDS,
    )
