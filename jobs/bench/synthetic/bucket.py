"""A bucket of S3 that is only listed: made-up names, in pages that come late, from a process of its
own, so that its CPU time is not the client's."""

from __future__ import annotations

import multiprocessing
import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

NAME = "photos"
PAGE_KEYS = 1000
_HEAD = '<?xml version="1.0"?><ListBucketResult><EncodingType>url</EncodingType>'
_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "made-up",
    "AWS_SECRET_ACCESS_KEY": "made-up",
    "AWS_REGION": "us-east-1",
}


@contextmanager
def made_up_bucket(objects: int, late_seconds: float) -> Iterator[str]:
    """The URI of a bucket with so many objects; as long as the context, S3 is there alone.

    Args:
        objects: about a thousand in each of 997 directories, if they are a million.
        late_seconds: how long an answer waits.
    """
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(objects, late_seconds, theirs), daemon=True
    )
    server.start()
    before = dict(os.environ)
    os.environ.update(_VARIABLES, AWS_ENDPOINT_URL=f"http://127.0.0.1:{ours.recv()}")
    try:
        yield f"s3://{NAME}/2026/"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.terminate()
        server.join()


def _serve(objects: int, late_seconds: float, port: Connection) -> None:
    keys = sorted(f"2026/{n % 997:03d}/image-{n:09d}.jpg" for n in range(objects))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(late_seconds)
            asked = parse_qs(urlsplit(self.path).query)
            after = (asked.get("continuation-token") or asked.get("start-after") or [""])[0]
            body = _page(keys, after).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def _page(keys: list[str], after: str) -> str:
    start = bisect_right(keys, after)
    some = keys[start : start + PAGE_KEYS]
    is_last = start + PAGE_KEYS >= len(keys)
    following = "" if is_last else f"<NextContinuationToken>{some[-1]}</NextContinuationToken>"
    truncated = f"<IsTruncated>{'false' if is_last else 'true'}</IsTruncated>"
    return f"{_HEAD}{truncated}{following}{''.join(map(_entry, some))}</ListBucketResult>"


def _entry(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-11-26T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{hash(key) % 2**128:032x}&quot;</ETag><Size>110000</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )
