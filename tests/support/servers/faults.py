"""What a proxy does to requests, and what it remembers of them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong: each fraction, 0 to 1, is of the GETs that ``pattern`` finds.

    The choice depends on the seed, the key and how often that key was asked for before, never on
    the bucket or the order in which threads arrive: a retry has a draw of its own, a rerun the same
    draws.
    """

    slow_down: float = 0
    """503 SlowDown."""
    access_denied: float = 0
    """403 AccessDenied, which busy stores also say when they mean SlowDown."""
    internal_error: float = 0
    """500 InternalError."""
    reset: float = 0
    """The connection is reset instead of an answer."""
    truncate: float = 0
    """Headers and half of the body, then the connection closes."""
    stall: float = 0
    """Headers and half of the body, then nothing for ``stall_seconds``."""

    stall_seconds: float = 60
    latency_seconds: float = 0
    """Added to each GET that ``pattern`` finds, before the first byte."""
    denied_pattern: str = ""
    """What it finds, if it is given, is denied each time."""
    denied_code: str = "AccessDenied"
    """What a denied request is told."""
    denied_status: int = 403
    """What it is told with."""
    unlisted: str = ""
    """Keys that it finds, if it is given, are in no listing."""
    ghosts: tuple[str, ...] = ()
    """Keys that every listing of what lies below their prefix names, be they there or not."""
    credentials_code: str = ""
    """If given, what every request is told, listings included: the credentials are bad."""
    credentials_status: int = 400
    """What it is told with: 403 by Azure, 401 by Google."""
    good_gets: int = 0
    """So many GETs that ``pattern`` finds pass before they are."""
    pattern: str = r"^/[^/?]+/[^?]"
    """Searched in the percent-decoded path and query; by default it finds objects, not listings."""
    methods: tuple[str, ...] = ("GET",)
    """Such requests fail, and no others; wherever this page says GETs."""
    seed: int = 0

    def draw(self, key: str, attempt: int) -> str | None:
        """Return the name of the fault for the ``attempt``-th request of ``key``, mostly None."""
        digest = hashlib.sha256(f"{self.seed} {attempt} {key}".encode()).digest()
        point = int.from_bytes(digest[:8]) / 2**64
        for field in fields(self)[:6]:
            point -= getattr(self, field.name)
            if point < 0:
                return field.name
        return None


@dataclass(frozen=True)
class Request:
    """One request that arrived: ``path`` is percent-decoded, ``fault`` what was done to it."""

    method: str
    path: str
    query: str
    fault: str | None
    headers: Mapping[str, str]
    """By their names in lower case."""

    @property
    def region(self) -> str | None:
        """The region that it was signed for, None if it is not signed."""
        scope = re.search(
            r"Credential=[^/]+/\d+/([^/]+)/s3/", self.headers.get("authorization", "")
        )
        return scope and scope[1]
