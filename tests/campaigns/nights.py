"""How many requests a night makes after many nights, on an S3 server that takes its time.

python -m tests.campaigns.nights [--runs 10 100 1000] [--rows 100] [--latency 0.03]
"""

import argparse
import json
import os

from jobs.bench.campaigns.nights import make_up, night
from pipeline.contract import layout
from pipeline.storage.filesystems import filesystem
from pipeline.storage.store import Store
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket, SeaweedFS


def measure(bucket: Bucket, runs: int, rows: int, latency: float) -> None:
    """Print what the first night without, and a night with what is kept of earlier ones takes."""
    store = Store(f"{bucket.uri}/out-{runs}")
    make_up(store, runs, rows)
    with FaultProxy(bucket.server.endpoint) as proxy:
        methods = ("GET", "HEAD", "PUT", "DELETE")
        proxy.faults = Faults(latency_seconds=latency, pattern="", methods=methods)
        lead_to(proxy.endpoint)
        for kind in ("first night", "night"):
            before = len(proxy.requests)
            took = night(store, runs, rows)
            found = {"runs": runs, "kind": kind, "requests": len(proxy.requests) - before}
            print(json.dumps(found | {"seconds": round(took.seconds, 2)} | vars(took)), flush=True)
    lead_to(bucket.server.endpoint)
    kept = store.list(layout.HISTORY)
    print(f"kept for the next: {sum(kept.values()):,} bytes in {len(kept)} objects", flush=True)


def lead_to(endpoint: str) -> None:
    """Where s3:// leads from now on."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    type(filesystem("s3")).clear_instance_cache()


def main() -> None:
    """Print a line for every number of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.03)
    a = parser.parse_args()
    with SeaweedFS() as server:
        os.environ.update(server.env)
        bucket = server.create_bucket()
        for runs in a.runs:
            measure(bucket, runs, a.rows, a.latency)


if __name__ == "__main__":
    main()
