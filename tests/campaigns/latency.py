"""What latency costs: an S3 server behind a proxy with and without 50 ms per GET, and local disk.

    python -m tests.campaigns.latency DIRECTORY [--preset cvt-13] [--images 280] [--milliseconds 50]

Server and proxy take their share of the same cores; what latency alone costs is the difference
between the two proxied rows.
"""

import argparse
import os
import tempfile
from pathlib import Path

from jobs.bench.campaigns.compare import Side, compare
from jobs.bench.measure.tables import table
from jobs.bench.synthetic.models import write_model
from jobs.bench.synthetic.presets import PRESET_NAMES
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import SeaweedFS

DECODE_IMAGES = 4096
"""From so many on, decode tasks have the size that they have in a run of millions of images."""


def measure(directory: Path, preset: str, images: int, seconds: float) -> list[tuple[str, Side]]:
    """Every way to the same images, in turns."""
    found: list[tuple[str, Side]] = []
    with tempfile.TemporaryDirectory() as name, SeaweedFS() as server:
        scratch = Path(name)
        bucket = server.create_bucket()
        bucket.put_tree(directory)
        source = str(write_model(scratch / "model", preset))
        with FaultProxy(server.endpoint) as proxy:
            os.environ.update(server.env)
            for title, uri, endpoint, latency in (
                ("local disk", str(directory), server.endpoint, 0.0),
                ("S3", bucket.uri, server.endpoint, 0.0),
                ("S3 through the proxy", bucket.uri, proxy.endpoint, 0.0),
                (f"and {1000 * seconds:.0f} ms", bucket.uri, proxy.endpoint, seconds),
            ):
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                proxy.faults = Faults(latency_seconds=latency)
                spec = RunSpec(
                    inputs=InputSpec(uris=(uri,)),
                    model=ModelSpec(source=source, dtype="bfloat16"),
                    output=OutputSpec(uri=str(scratch / title), top_k=5),
                )
                sides = compare(spec, [uri], images, 1, scratch, DECODE_IMAGES)
                found += [(title, side) for side in sides]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", choices=PRESET_NAMES, default="cvt-13")
    parser.add_argument("--images", type=int, default=280)
    parser.add_argument("--milliseconds", type=float, default=50)
    a = parser.parse_args()
    sides = measure(a.directory, a.preset, a.images, a.milliseconds / 1000)
    rows = [(title, f"{side.decode:.0f}", f"{side.end_to_end:.1f}") for title, side in sides]
    print(table(("images from", "decode, images/s", "end to end, images/s"), rows))


if __name__ == "__main__":
    main()
