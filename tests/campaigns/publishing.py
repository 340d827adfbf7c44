"""Publishing by completed uploads against publishing by copies, on an S3 server of its own.

python -m tests.campaigns.publishing [--files 100] [--mib 4] [--rounds 3]
"""

import argparse
import json
import os

from jobs.bench.campaigns.publishing import bench_publish
from pipeline.storage.store import Store
from tests.support.servers.seaweedfs import SeaweedFS


def main() -> None:
    """Print what both ways take, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--mib", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    with SeaweedFS() as server:
        os.environ.update(server.env)
        store = Store(f"{server.create_bucket().uri}/out")
        print(json.dumps(bench_publish(store, a.files, a.mib, a.rounds), indent=2))


if __name__ == "__main__":
    main()
