"""How a bucket of many real objects is listed: an S3 server on loopback, filled for it.

python -m tests.campaigns.objects [--number 100000]
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.support.servers.seaweedfs import Bucket, SeaweedFS

THREADS = 16


def fill(bucket: Bucket, number: int) -> None:
    """Put so many small objects into a bucket."""

    def put(index: int) -> None:
        bucket.put(f"{index // 1000:04d}/{index:07d}.jpg", b"x" * 100)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(put, range(number)):
            pass


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


if __name__ == "__main__":
    main()
