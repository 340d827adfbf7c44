"""The CPU stage: one row for every item, whatever its bytes."""

import hashlib
import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cvt import CvtImageProcessor
from pipeline.contract.errors import ERROR_CODES, DecodeError
from pipeline.contract.schema import DECODED
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.stages.decode.image import THUMBNAIL_PIXELS
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.watching.progress import Reporter
from pipeline.storage.filesystems import WorkerEnvironment
from tests.support.inputs.fetching import work
from tests.support.inputs.images import encode, noise
from tests.support.inputs.raised import RAISED, name
from tests.support.inputs.tars import tar_bytes

SIZE = 32
NO_PIXELS = ("width", "height", "_pixels", "_thumbnail")


def settings(**changes: Any) -> DecodeSettings:
    values: dict[str, Any] = {
        "preprocessing": CvtPreprocessing(CvtImageProcessor(size=SIZE)),
        "mode": "exact",
        "environment": WorkerEnvironment({}),
        "max_pixels": 10**6,
        "max_bytes": 10**6,
        "block_size": 8,
    }
    return DecodeSettings(**values | changes)


def decode(*rows: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """All rows; what holds for each of them is checked here."""
    options = settings(**changes)
    tables = list(decode_block(work(*rows), options))
    assert all(table.schema == DECODED for table in tables)
    assert all(0 < len(table) <= options.block_size for table in tables)
    decoded: list[dict[str, Any]] = pa.concat_tables([*tables, DECODED.empty_table()]).to_pylist()
    for row in decoded:
        if row["status"] == "failed":
            assert row["error_code"] in ERROR_CODES
            assert row["error_message"].isprintable()
            assert [row[name] for name in NO_PIXELS] == [None] * 4
        else:
            assert row["status"] == "ok"
            assert row["error_code"] is row["error_message"] is None
            assert len(row["_pixels"]) == SIZE * SIZE * 3
    return decoded


def files(directory: Path, contents: list[bytes]) -> list[dict[str, Any]]:
    rows = []
    for number, data in enumerate(contents):
        path = directory / f"{number:04d}.jpg"
        path.write_bytes(data)
        rows.append({"uri": str(path), "size_bytes": len(data)})
    return rows


def test_good_image(tmp_path: Path) -> None:
    image = noise()
    data = encode(image, "PNG")
    (row,) = decode(*files(tmp_path, [data]))
    pixels = np.frombuffer(row.pop("_pixels"), np.uint8).reshape(SIZE, SIZE, 3)
    np.testing.assert_array_equal(pixels, CvtImageProcessor(size=SIZE).pixels(image))
    assert row == {
        "uri": str(tmp_path / "0000.jpg"), "status": "ok", "error_code": None,
        "error_message": None, "width": 40, "height": 50, "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(), "source_version": "v",
        "_shard": None, "_shard_rows": None, "_thumbnail": None,
    }  # fmt: skip


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (row,) = decode(*files(tmp_path, [encode(noise(40, 50), "JPEG", exif=exif)]))
    assert (row["width"], row["height"]) == (50, 40)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda good: b"", "empty_file"),
        (lambda good: b"<html>404</html>", "not_an_image"),
        (lambda good: good[: len(good) // 2], "truncated"),
        (lambda good: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (lambda good: encode(Image.new("1", (2000, 1000)), "PNG"), "too_many_pixels"),
        (lambda good: bytes(10**6 + 1), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_image_is_a_row(tmp_path: Path, make: Callable[[bytes], bytes], expected: str) -> None:
    good = encode(noise(), "JPEG")
    data = make(good)
    first, bad, last = decode(*files(tmp_path, [good, data, good]))
    assert (first["status"], last["status"]) == ("ok", "ok")
    assert bad["error_code"] == expected
    assert bad["size_bytes"] == len(data)
    has_bytes = expected in DecodeError.codes
    assert bad["sha256"] == (hashlib.sha256(data).hexdigest() if has_bytes else None)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_damaged_bytes_of_any_kind_are_one_row_each(tmp_path: Path, format: str, mode: str) -> None:
    draw = random.Random(format)
    good = encode(noise(), format)
    damaged = []
    for _ in range(60):
        data = bytearray(good[: draw.randint(1, len(good))] if draw.random() < 0.3 else good)
        for _ in range(draw.choice([1, 4, 40])):
            data[draw.randrange(min(len(data), draw.choice([40, 10**6])))] = draw.randrange(256)
        damaged.append(bytes(data))
    rows = decode(*files(tmp_path, damaged), mode=mode)
    assert [row["uri"] for row in rows] == [str(tmp_path / f"{n:04d}.jpg") for n in range(60)]


@pytest.mark.parametrize(
    ("images", "block_size", "lengths"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 100, [3])]
)
def test_block_sizes(tmp_path: Path, images: int, block_size: int, lengths: list[int]) -> None:
    rows = files(tmp_path, [encode(noise(), "JPEG")] * images)
    tables = list(decode_block(work(*rows), settings(block_size=block_size)))
    assert [len(table) for table in tables] == lengths


def test_pixels_stay_with_their_rows_in_blocks_of_good_and_bad_images(tmp_path: Path) -> None:
    images = [noise(seed=n) for n in range(11)]
    bad = {0, 3, 4, 8, 9, 10}  # all of the last block
    contents = [b"bad" if n in bad else encode(image, "PNG") for n, image in enumerate(images)]
    tables = list(decode_block(work(*files(tmp_path, contents)), settings(block_size=4)))
    found = [data for table in tables for data in table["_pixels"].to_pylist()]
    reference = CvtImageProcessor(size=SIZE)
    assert found == [
        None if n in bad else reference.pixels(image).tobytes() for n, image in enumerate(images)
    ]
    assert [table["_pixels"].null_count for table in tables] == [2, 1, 3]


def test_pixels_are_one_piece_of_memory_as_large_as_they_are(tmp_path: Path) -> None:
    """Or each would be copied once more on its way to the object store."""
    good, bad = encode(noise(), "PNG"), b"bad"
    rows = files(tmp_path, [good, good, bad, good, bad, bad])
    for table, number in zip(
        decode_block(work(*rows), settings(block_size=4)), (3, 0), strict=True
    ):
        (chunk,) = table["_pixels"].chunks
        assert chunk.buffers()[2].size == number * SIZE * SIZE * 3


@pytest.mark.parametrize("error", RAISED, ids=name)
def test_whatever_a_decoder_raises_is_the_row_of_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    good, bad = (encode(noise(seed=number), "PNG") for number in range(2))
    pixels_of = CvtImageProcessor.pixels_from_bytes

    def decode_or_raise(processor: CvtImageProcessor, data: bytes, **options: Any) -> Any:
        if data == bad:
            raise error
        return pixels_of(processor, data, **options)

    monkeypatch.setattr(CvtImageProcessor, "pixels_from_bytes", decode_or_raise)
    found = decode(*files(tmp_path, [good, bad, good]))
    assert [row["status"] for row in found] == ["ok", "failed", "ok"]
    assert found[1]["error_code"] == "corrupt"
    assert name(error) in found[1]["error_message"]


def test_messages_quote_nothing_of_a_file(tmp_path: Path) -> None:
    """A table of failures is read by more people than the files that a list names."""
    secret = b"AWS_KEY=wJalr'XUt\"nFEMI"
    starts = [b"", b"P5 ", b"P6\n", b"/* XPM */\n", b"#define x_width ", b"\x89PNG\r\n\x1a\n",
              b"GIF89a", b"BM", b"SIMPLE  =", b"8BPS", b"II*\x00", b"<svg ", b"%!PS ", b"qoif",
              b"\xff\xd8\xff"]  # fmt: skip
    for row in decode(*files(tmp_path, [start + secret for start in starts])):
        assert row["status"] == "failed"
        assert not [n for n in range(len(secret) - 3)
                    if secret[n : n + 4].decode() in row["error_message"]]  # fmt: skip


def test_no_work_no_tables() -> None:
    assert list(decode_block(work(), settings())) == []


def test_shard_of_good_and_bad_members_streams_in_blocks(tmp_path: Path) -> None:
    members = {f"{n}.png": encode(noise(seed=n), "PNG") for n in range(9)} | {"x.jpg": b"bad"}
    (tmp_path / "s.tar").write_bytes(tar_bytes(members).rstrip(b"\0"))
    uri = str(tmp_path / "s.tar")
    rows = decode({"uri": uri, "kind": "webdataset"}, block_size=4)
    assert [row["error_code"] for row in rows] == [None] * 9 + ["not_an_image", "shard_truncated"]
    assert [row["_shard"] for row in rows] == [uri] * 11
    assert [row["_shard_rows"] for row in rows] == [None] * 10 + [11]


class TestThumbnails:
    def sampled(self, rows: list[dict[str, Any]], rate: float, **changes: Any) -> set[str]:
        decoded = decode(*rows, thumbnail_rate=rate, **changes)
        for row in decoded:
            if row["_thumbnail"] is not None:
                image = Image.open(io.BytesIO(row["_thumbnail"]))
                assert image.format == "JPEG"
                assert max(image.size) <= THUMBNAIL_PIXELS
        return {row["uri"] for row in decoded if row["_thumbnail"] is not None}

    def test_rate(self, tmp_path: Path) -> None:
        rows = files(tmp_path, [encode(noise(), "JPEG")] * 20 + [b"bad"])
        assert self.sampled(rows, 0.0) == set()
        assert len(self.sampled(rows, 1.0)) == 20

    def test_choice_is_the_same_in_every_attempt_and_block(self, tmp_path: Path) -> None:
        rows = files(tmp_path, [encode(noise(), "JPEG")] * 60)
        chosen = self.sampled(rows, 0.3)
        assert 5 <= len(chosen) <= 35
        assert self.sampled(rows[::-1], 0.3, block_size=3) == chosen
        assert self.sampled(rows[:30], 0.3) | self.sampled(rows[30:], 0.3) == chosen

    def test_large_pixels_are_reduced(self, tmp_path: Path) -> None:
        rows = files(tmp_path, [encode(noise(), "JPEG")])
        options = settings(
            preprocessing=CvtPreprocessing(CvtImageProcessor(size=224)), thumbnail_rate=1.0
        )
        (table,) = decode_block(work(*rows), options)
        image = Image.open(io.BytesIO(table["_thumbnail"][0].as_py()))
        assert image.size == (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)


class TestDeadline:
    def test_what_was_not_begun_is_left_with_its_name_alone(self, tmp_path: Path) -> None:
        rows = [{"uri": "a.jpg"}, {"uri": "b.tar", "kind": "webdataset"}]
        for row in rows:
            (table,) = decode_block(work(row), settings(stop_at=time.time()))
            assert table.schema == DECODED
            (found,) = table.to_pylist()
            assert (found["uri"], found["status"]) == (row["uri"], "deferred")
            assert found["_shard"] == (row["uri"] if "kind" in row else None)

    @pytest.mark.parametrize("ahead", [-600, 600])
    def test_is_told_by_the_clock_of_the_driver(self, tmp_path: Path, ahead: int) -> None:
        class Board(Reporter):
            def now(self) -> float:
                return time.time() + ahead

        rows = files(tmp_path, [encode(noise(), "PNG")])
        (table,) = decode_block(work(*rows), settings(stop_at=time.time(), reporter=Board()))
        assert table["status"].to_pylist() == ["deferred" if ahead > 0 else "ok"]

    def test_before_it_and_for_a_shard_that_was_begun_work_goes_on(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(tar_bytes({"a.png": encode(noise(), "PNG")}))
        row = {"uri": str(tmp_path / "s.tar"), "kind": "webdataset"}
        assert decode(row, stop_at=time.time() + 60)[0]["status"] == "ok"
        begun = row | {"_done": ["gone"]}
        assert decode(begun, stop_at=time.time() - 1)[0]["status"] == "ok"


def test_worker_sees_the_storage_as_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://worker")
    environment = WorkerEnvironment({"AWS_ENDPOINT_URL": "http://driver"})
    list(decode_block(work(), settings(environment=environment)))
    assert os.environ["AWS_ENDPOINT_URL"] == "http://driver"
