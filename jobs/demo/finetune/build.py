"""Build what the demo learns from: a Parquet file of labelled images.

    python -m jobs.demo.finetune.build [--data DIR] [--output jobs/demo/finetune/lessons.parquet]

The images are the first of the test half of Fashion-MNIST, none of which the base has seen. Of each
class, as many are held out by the hash of their content as are not.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.demo.build_bucket import png
from jobs.demo.data import CLASS_NAMES, DEFAULT_ROOT, load_split
from pipeline.runs.finetune.labelled.split import held_out

EACH = 50
"""Images of a class that are trained on, and that are held out."""
VAL_SHARE = 0.5
LABEL = "truth"
"""The column of the true labels; the output has one called label itself."""


def lessons(root: Path) -> Iterator[dict[str, object]]:
    """Rows of ``image``, a PNG, and ``LABEL``."""
    taken: Counter[tuple[str, bool]] = Counter()
    for pixels, number in zip(*load_split(root, "t10k"), strict=True):
        image, label = png(Image.fromarray(pixels)), CLASS_NAMES[number]
        side = bool(held_out([hashlib.sha256(image).hexdigest()], VAL_SHARE)[0])
        if taken[label, side] < EACH:
            taken[label, side] += 1
            yield {"image": image, LABEL: label}


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.finetune.build")
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT, help="Fashion-MNIST's directory")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "lessons.parquet")
    arguments = parser.parse_args()
    try:
        table = pa.Table.from_pylist(list(lessons(arguments.data)))
    except FileNotFoundError as error:
        parser.error(str(error))
    pq.write_table(table, arguments.output)
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {len(table):,} images, {size:,} bytes")


if __name__ == "__main__":
    main()
