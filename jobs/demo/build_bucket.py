"""Build the demo's bucket: labelled images, a WebDataset shard, odd files and broken files.

    python -m jobs.demo.build_bucket [--data DIR] [--output jobs/demo/bucket]

Everything is drawn from the test half of Fashion-MNIST with a fixed seed, so the same versions of
Pillow and NumPy write the same bytes.
"""

import argparse
import csv
import io
import shutil
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs.demo.data import CLASS_NAMES, DEFAULT_ROOT, load_split

SEED = 20170828  # the day on which the Fashion-MNIST paper appeared
LOOSE_PER_CLASS = 24
SHARD_PER_CLASS = 12
SHARD = "shards/fashion-000.tar"
EXIF_ORIENTATION = 0x0112
BOMB_SIDE = 20_000


@dataclass(frozen=True)
class Sample:
    """One test image: its index in the test set, its grey picture and its class name."""

    index: int
    image: Image.Image
    label: str

    @property
    def slug(self) -> str:
        """The class name as a directory name: "T-shirt/top" becomes "t-shirt-top"."""
        return self.label.lower().replace("/", "-").replace(" ", "-")


def draw_samples(root: Path) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Test images for the loose files, the shard and the odd files; no image is used twice.

    The first two hold the same number of each class; the third holds one per class.
    """
    images, labels = load_split(root, "t10k")
    rng = np.random.default_rng(SEED)
    loose, shard, odd = [], [], []
    for label_id, label in enumerate(CLASS_NAMES):
        drawn = rng.choice(
            np.flatnonzero(labels == label_id),
            LOOSE_PER_CLASS + SHARD_PER_CLASS + 1,
            replace=False,
        )
        samples = [Sample(int(i), Image.fromarray(images[i]), label) for i in drawn]
        loose += samples[:LOOSE_PER_CLASS]
        shard += samples[LOOSE_PER_CLASS:-1]
        odd.append(samples[-1])
    return loose, shard, odd


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    """The image ``factor`` times as wide and high, so that preprocessing has to resize it."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    """The image as an optimised PNG."""
    return _encoded(image, "PNG", optimize=True)


def jpeg(image: Image.Image, **options: object) -> bytes:
    """The image as a JPEG of quality 90."""
    return _encoded(image, "JPEG", quality=90, optimize=True, **options)


def _encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def loose_files(samples: list[Sample]) -> Iterator[tuple[str, bytes, str]]:
    """(path in the bucket, bytes, label) of each loose file, the four kinds in turn.

    PNG as it is (28x28), RGB JPEG at twice the size, grey JPEG at four times the size, and RGB JPEG
    at three times the size on a wide black canvas, which the centre crop undoes.
    """
    for position, sample in enumerate(samples):
        stem = f"images/{sample.slug}/{sample.index:05d}"
        match position % 4:
            case 0:
                yield f"{stem}.png", png(sample.image), sample.label
            case 1:
                yield f"{stem}.jpg", jpeg(enlarged(sample.image, 2).convert("RGB")), sample.label
            case 2:
                yield f"{stem}.jpg", jpeg(enlarged(sample.image, 4)), sample.label
            case _:
                yield f"{stem}.jpeg", jpeg(_on_wide_canvas(sample.image)), sample.label


def _on_wide_canvas(image: Image.Image) -> Image.Image:
    large = enlarged(image, 3)
    canvas = Image.new("RGB", (large.width * 3 // 2, large.height))
    canvas.paste(large, ((canvas.width - large.width) // 2, 0))
    return canvas


def write_shard(path: Path, samples: list[Sample]) -> Iterator[tuple[str, str]]:
    """Write a WebDataset tar of NNNNN.png and NNNNN.cls; yield (member, label) of each image.

    Owner, mode and time of each member are fixed, so that the same samples give the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for position, sample in enumerate(samples):
            _add_member(tar, f"{position:05d}.png", png(sample.image))
            label_id = CLASS_NAMES.index(sample.label)
            _add_member(tar, f"{position:05d}.cls", str(label_id).encode())
            yield f"{position:05d}.png", sample.label


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def odd_files(samples: list[Sample]) -> Iterator[tuple[str, bytes, str | None]]:
    """(path, bytes, label) of good images in formats that naive pipelines get wrong.

    The label is None where the picture no longer shows one garment.
    """
    by_label = {sample.label: sample for sample in samples}
    boot, bag, dress, coat = (by_label[n] for n in ("Ankle boot", "Bag", "Dress", "Coat"))
    trouser, sneaker, shirt = (by_label[n] for n in ("Trouser", "Sneaker", "Shirt"))
    yield "odd/exif-rotated.jpg", _exif_rotated(boot.image), boot.label
    yield "odd/rgba-round-corners.png", png(_round_corners(bag.image)), bag.label
    yield "odd/cmyk.jpg", jpeg(enlarged(dress.image, 4).convert("CMYK")), dress.label
    yield "odd/grey-16-bit.png", png(_sixteen_bit(coat.image)), coat.label
    yield "odd/one-bit.png", png(enlarged(trouser.image, 4).convert("1")), trouser.label
    yield "odd/animated.gif", _animated(sneaker.image), sneaker.label
    yield "odd/palette.png", png(enlarged(shirt.image, 2).quantize(16)), shirt.label
    yield "odd/strip-4000x3.png", png(enlarged(boot.image, 1).resize((4000, 3))), None


def _exif_rotated(image: Image.Image) -> bytes:
    """Stored rotated by 90 degrees, with the EXIF orientation that turns it upright again."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return jpeg(enlarged(image, 4).transpose(Image.Transpose.ROTATE_90), exif=exif)


def _round_corners(image: Image.Image) -> Image.Image:
    large = enlarged(image, 4)
    alpha = Image.new("L", large.size)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, *large.size), radius=12, fill=255)
    large = large.convert("RGB")
    large.putalpha(alpha)
    return large


def _sixteen_bit(image: Image.Image) -> Image.Image:
    pixels: NDArray[np.uint16] = np.asarray(image).astype(np.uint16) * 257
    return Image.fromarray(pixels)


def _animated(image: Image.Image) -> bytes:
    first = enlarged(image, 2)
    second = first.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return _encoded(first, "GIF", save_all=True, append_images=[second], duration=400, loop=0)


def broken_files(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of files that must end as failed rows, each for a different reason."""
    whole = jpeg(enlarged(sample.image, 4))
    yield "broken/empty.jpg", b""
    yield "broken/text.jpg", b"<html><body>404 Not Found</body></html>\n"
    yield "broken/truncated.jpg", whole[: len(whole) // 2]
    yield "broken/bomb.png", black_png(BOMB_SIDE)
    yield "broken/heic-named.png", heic_header()


def black_png(side: int) -> bytes:
    """A valid one-bit PNG of side x side black pixels: 49 kB that decode to 1.2 GB of RGB."""
    row = bytes(1 + (side + 7) // 8)
    compressor = zlib.compressobj(9)
    body = b"".join([*(compressor.compress(row) for _ in range(side)), compressor.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in chunks)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def heic_header() -> bytes:
    """The opening boxes of a HEIC photograph (ISO 14496-12): a format that Pillow cannot read."""
    return _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + _box(b"mdat", bytes(512))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def build(root: Path, bucket: Path) -> None:
    """Write the bucket and its labels.csv, in place of an earlier one.

    Raises:
        FileNotFoundError: Fashion-MNIST is not under ``root``.
        FileExistsError: ``bucket`` holds something other than an earlier bucket.
    """
    loose, shard, odd = draw_samples(root)
    _make_room(bucket)
    labels = []
    for path, data, label in (*loose_files(loose), *odd_files(odd)):
        _write(bucket / path, data)
        if label is not None:
            labels.append((path, label))
    for path, data in broken_files(loose[0]):
        _write(bucket / path, data)
    labels += [(f"{SHARD}#{name}", label) for name, label in write_shard(bucket / SHARD, shard)]
    with (bucket / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("uri_suffix", "label"), *sorted(labels)])


def _make_room(bucket: Path) -> None:
    """Delete an earlier bucket, known by its labels.csv, and nothing else."""
    if not bucket.exists():
        return
    if not (bucket / "labels.csv").exists():
        raise FileExistsError(f"{bucket} was not built by this script: delete it or name another")
    shutil.rmtree(bucket)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main() -> None:
    """Parse the command line and build the bucket."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.build_bucket")
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT, help="Fashion-MNIST's directory")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "bucket")
    arguments = parser.parse_args()
    try:
        build(arguments.data, arguments.output)
    except (FileNotFoundError, FileExistsError) as error:
        parser.error(str(error))
    files = [path for path in arguments.output.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{arguments.output}: {len(files)} files, {size:,} bytes")


if __name__ == "__main__":
    main()
