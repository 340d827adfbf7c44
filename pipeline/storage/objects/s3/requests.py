"""Objects of S3, each read by one signed GET.

botocore's own client takes twice the CPU time; pyarrow's asks for every object twice (HEAD, GET)
and can neither pay for requests nor follow a bucket to its region. Here botocore finds the address
and the credentials, signs and connects; what lies between is an ordinary HTTP request.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from html import unescape
from typing import TypeVar
from urllib.parse import quote

from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from pipeline.contract.errors import FetchError, JobError
from pipeline.storage.objects.bodies import Body
from pipeline.storage.objects.s3.access import CONNECT_SECONDS, LIST_SECONDS, Access, access
from pipeline.storage.objects.s3.refusals import SKEWED, wrong_clock
from pipeline.storage.read_ahead import THREADS
from pipeline.storage.retry import BadCredentialsError, PassingError, Patience, classify

_DEFAULT_REGION = "us-east-1"
_BUSY = ("SlowDown", "Throttling", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimit")
_BAD_CREDENTIALS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    SKEWED, "TokenRefreshRequired", "RequestExpired", "InvalidClientTokenId",
    "UnrecognizedClient", "AuthFailure", "MissingAuthenticationToken", "MissingSecurityHeader",
    "InvalidSecurity", "NotSignedUp", "AccountProblem", "SignatureNotMatch",
)  # fmt: skip
"""The beginnings of what AWS and compatible stores say of the credentials themselves."""
_DENIED = ("AccessDenied", "AllAccessDisabled", *_BAD_CREDENTIALS)
_NOT_IMPLEMENTED = 501
T = TypeVar("T")


@dataclass(frozen=True)
class _Bucket:
    """Where a bucket is."""

    url: str
    """What a quoted key is appended to."""
    region: str
    http: URLLib3Session


class S3Object:
    """An object, which may be read in pieces as long as it stays the same."""

    def __init__(self, path: str) -> None:
        self.bucket, _, self.key = path.partition("/")
        self._etag: str | None = None

    def open(self, start: int = 0, stop: int | None = None) -> Body:
        """Its bytes from ``start`` up to ``stop``, or to the end.

        Raises:
            FetchError: S3 refuses; the code says why. A PassingError if another try may help.
        """
        headers = {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        response = self._request("GET", headers)
        self._check_version(response)
        if headers and response.status_code != 206:
            response.raw.close()
            raise FetchError("storage_error", "the server cannot send a part of an object")
        return Body(response.raw, int(response.headers["Content-Length"]))

    def size(self) -> int:
        """In bytes."""
        response = self._request("HEAD", {})
        self._check_version(response)
        return int(response.headers["Content-Length"])

    def _check_version(self, response: AWSResponse) -> None:
        etag = response.headers.get("ETag")
        if self._etag not in (None, etag):
            response.raw.close()
            raise FetchError("storage_error", "the object was replaced while being read")
        self._etag = etag

    def _request(self, method: str, headers: dict[str, str]) -> AWSResponse:
        response = answer(self.bucket, method, quote(self.key, safe="/~"), headers)
        if response.status_code < 300:
            return response
        if _may_be_of_credentials(response) and (reason := refusal_of_credentials(self.bucket)):
            if SKEWED in reason:  # which says already what to do
                raise BadCredentialsError(reason, remedy="then start the same command again")
            raise BadCredentialsError(f"S3 refuses the credentials: {reason}")
        raise refusal(response)


def refusal_of_credentials(bucket: str) -> str | None:
    """Why S3 refuses the credentials themselves; None if it does not.

    Asks for a listing of no objects, which may be denied even to good credentials.
    """
    try:
        response = answer(bucket, "GET", "?list-type=2&max-keys=0")
    except BotoCoreError:  # no answer, which says nothing about credentials
        return None
    text = response.content.decode("utf-8", "replace") if response.status_code >= 300 else ""
    is_refused = _element("Code", text).startswith(_BAD_CREDENTIALS)
    return str(refusal(response)) if is_refused else None


def answers(bucket: str) -> bool:
    """Whether anything at all comes back when the bucket is asked for a listing of no objects."""
    try:
        answer(bucket, "GET", "?list-type=2&max-keys=0", patient=True)
    except (ConnectionError, HTTPClientError):
        return False
    except (BotoCoreError, ClientError):  # of credentials, say, that cannot be refreshed
        return True
    return True


def _may_be_of_credentials(response: AWSResponse) -> bool:
    """Whether the credentials may be at fault: one object may be refused so, too, by a store that
    signs its odd key in another way. The answer to a HEAD has no text that tells."""
    code = _element("Code", response.content.decode("utf-8", "replace"))
    return code.startswith(_BAD_CREDENTIALS) if code else response.status_code in (400, 401, 403)


def answer(
    bucket: str,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    body: bytes = b"",
    patient: bool = False,
) -> AWSResponse:
    """What the bucket's region answers.

    Args:
        bucket: its name.
        method: of HTTP.
        path: the key, or a query, already quoted.
        headers: beside those that S3 wants.
        body: what is sent.
        patient: wait for the answer as long as for a listing, not as for an object.
    """
    reach = access()
    if patient:
        reach = replace(reach, read_seconds=max(LIST_SECONDS, reach.read_seconds))
    place = _locate(reach, bucket)
    response = _send(reach, place, method, path, headers or {}, body)
    if response.status_code >= 300 and (region := _other_region(response, place)):
        _regions[bucket] = region
        response = _send(reach, _locate(reach, bucket), method, path, headers or {}, body)
    return response


def insist(request: Callable[[], T], away_seconds: float | None = None) -> T:
    """What a request of ours returns, tried again as long as there is hope, and a server that is
    busy or away as ``Patience`` has it.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        PermissionError: it is not allowed.
        OSError: S3 does not answer, or refuses.
    """
    patience = Patience(away_seconds)
    while True:
        try:
            return request()
        except JobError:
            raise
        except Exception as error:  # noqa: BLE001  # HTTP clients raise classes of their own
            try:
                patience.pause(classify(error))
            except FetchError as last:
                kinds = {"not_found": FileNotFoundError, "access_denied": PermissionError}
                raise kinds.get(last.code, OSError)(str(last)) from error


_regions: dict[str, str] = {}
"""The regions of buckets that turned out to be elsewhere."""
_lock = threading.Lock()


def _locate(reach: Access, bucket: str) -> _Bucket:
    region = _regions.get(bucket) or reach.region or _DEFAULT_REGION
    with _lock:  # botocore's sessions make one client at a time
        return _address(reach, bucket, region)


@lru_cache(maxsize=256)
def _address(reach: Access, bucket: str, region: str) -> _Bucket:
    """Where a bucket is: botocore tells by the URL that it makes for an object in it."""
    client = reach.session.create_client(
        "s3",
        region_name=region,
        endpoint_url=reach.endpoint,
        config=Config(signature_version=UNSIGNED),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"})
    server = "/".join(url.split("/")[:3])
    return _Bucket(url.removesuffix("x"), region, _connections(reach, server))


@lru_cache(maxsize=256)
def _connections(reach: Access, server: str) -> URLLib3Session:
    return URLLib3Session(
        verify=reach.session.get_config_variable("ca_bundle") or True,
        proxies=get_environ_proxies(server),
        timeout=(CONNECT_SECONDS, reach.read_seconds),
        max_pool_connections=THREADS,
    )


def _send(
    reach: Access, bucket: _Bucket, method: str, path: str, headers: dict[str, str], body: bytes
) -> AWSResponse:
    if reach.requester_pays:
        headers = headers | {"x-amz-request-payer": "requester"}
    url = bucket.url + path
    request = AWSRequest(method=method, url=url, headers=headers, data=body, stream_output=True)
    if reach.is_signed:
        credentials = reach.credentials.get_frozen_credentials()
        S3SigV4Auth(credentials, "s3", bucket.region).add_auth(request)
    return bucket.http.send(request.prepare())


def _other_region(response: AWSResponse, bucket: _Bucket) -> str | None:
    """The region that a refusal points to; None if it has another reason."""
    named = re.search(rb"<Region>([\w-]+)</Region>", response.content)
    region = response.headers.get("x-amz-bucket-region") or (named and named[1].decode())
    return region if region != bucket.region else None


def refusal(response: AWSResponse) -> FetchError:
    """The error for an answer that is a refusal."""
    status, content = response.status_code, response.content.decode("utf-8", "replace")
    code, message = _element("Code", content), _element("Message", content)
    text = " ".join(filter(None, [f"S3 answers {status}", code, f"({message})" if message else ""]))
    if status == 404:
        return FetchError("not_found", text)
    if code == SKEWED:
        return FetchError("storage_error", f"{text}: {wrong_clock(response.headers.get('Date'))}")
    if status in (429, 503) or code.startswith(_BUSY):
        return PassingError("storage_error", text, is_busy=True)
    if code == "InvalidObjectState":
        return FetchError("storage_error", f"{text}: restore it from the archive first")
    if status in (401, 403) or code.startswith(_DENIED):
        return PassingError("access_denied", text)
    if status in (408, 504) or code == "RequestTimeout":
        return PassingError("timeout", text)
    if (status >= 500 and status != _NOT_IMPLEMENTED) or status == 409:
        return PassingError("storage_error", text)
    return FetchError("storage_error", text)


def _element(name: str, content: str) -> str:
    found = re.search(f"<{name}>([^<]*)</{name}>", content)
    return unescape(found[1]).strip() if found else ""
