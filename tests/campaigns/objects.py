"""How a bucket of many real objects is listed: an S3 server on loopback, filled for it.

First as a run lists it, then the bare listing beside that of s3fs, in CPU seconds.

python -m tests.campaigns.objects [--number 100000]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import s3fs

from pipeline.storage.objects.s3.pages import list_objects
from tests.support.servers.seaweedfs import Bucket, SeaweedFS

THREADS = 16


def fill(bucket: Bucket, number: int) -> None:
    """Put so many small objects into a bucket."""

    def put(index: int) -> None:
        bucket.put(f"{index // 1000:04d}/{index:07d}.jpg", b"x" * 100)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(put, range(number)):
            pass


def bare(bucket: Bucket) -> Iterator[int]:
    """List the bucket by our own requests; the sizes of its objects."""
    return (size for _, size, _ in list_objects(bucket.name, ""))


def by_s3fs(bucket: Bucket) -> Iterator[int]:
    """The same by s3fs, which keeps everything that it finds."""
    fs = s3fs.S3FileSystem(endpoint_url=bucket.server.endpoint, use_listings_cache=False)
    return (found["size"] for found in fs.find(bucket.name, detail=True).values())


def cpu_seconds(sizes: Callable[[Bucket], Iterator[int]], bucket: Bucket, number: int) -> float:
    """What a listing takes of this process; all objects must be there."""
    started = time.process_time()
    count = sum(1 for _ in sizes(bucket))
    if count != number:
        raise RuntimeError(f"{count} of {number} objects are listed")
    return time.process_time() - started


def compare(bucket: Bucket, number: int) -> None:
    """Print both listings, in turn, and the median of their ratios."""
    ratios = []
    for _ in range(3):
        ours = cpu_seconds(bare, bucket, number)
        theirs = cpu_seconds(by_s3fs, bucket, number)
        ratios.append(theirs / ours)
        print(f"CPU seconds for {number} objects: ours {ours:.2f}, s3fs {theirs:.2f}")
    print(f"s3fs takes {median(ratios):.1f} times as much (median of {len(ratios)} rounds)")


def main() -> None:
    """Print what listing it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100_000)
    number = parser.parse_args().number
    with SeaweedFS() as server:
        bucket = server.create_bucket()
        fill(bucket, number)
        # In a process of its own, whose memory the filling has not grown.
        listing = [sys.executable, "-m", "jobs.bench", "listing", bucket.uri]
        subprocess.run(listing, env=os.environ | server.env, check=True)
        os.environ.update(server.env)
        compare(bucket, number)


if __name__ == "__main__":
    main()
