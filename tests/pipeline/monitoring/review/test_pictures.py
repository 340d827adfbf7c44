"""Which images have a picture: those that a person is shown, whoever has computed them."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.contract.schema import PICTURE
from pipeline.monitoring.review.pictures import (
    PICTURE_PIXELS,
    Shortlist,
    pictures_for,
    small_jpeg,
    with_pictures,
)
from pipeline.monitoring.review.queue import ReviewQueue
from pipeline.monitoring.summary import Moments
from pipeline.storage.parquet import read_table
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import IDENTITY, close_run, rows_of
from tests.support.outputs.drifting import CLASSES, softmax, vectors

SIZE = 15


def colour(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(8, 8, 3) pixels that tell which image they are."""
    return np.full(
        (8, 8, 3), (number % 16 * 16, number // 16 % 16 * 16, number // 256 * 16), np.uint8
    )


@pytest.fixture
def queue() -> ReviewQueue:
    thresholds = tuple(np.linspace(0.2, 0.9, len(CLASSES)).tolist())
    return ReviewQueue(SIZE, "sigmoid", Moments.of(vectors(5, 300)), thresholds)


@pytest.fixture
def rows() -> pa.Table:
    return rows_of(softmax(0, 1000), CLASSES, embeddings=vectors(1, 1000), failures=["corrupt"])


def pictured(rows: pa.Table, queue: ReviewQueue, batch: int, actors: int) -> pa.Table:
    """The rows as actors give them, which take turns."""
    lists, tables = [Shortlist(queue) for _ in range(actors)], []
    for number, start in enumerate(range(0, len(rows), batch)):
        part = rows.slice(start, batch)
        chosen = np.flatnonzero(lists[number % actors].choose(part)).tolist()
        tables.append(with_pictures(part, {at: colour(start + at) for at in chosen}))
    return pa.concat_tables(tables)


@pytest.mark.parametrize(("batch", "actors"), [(8, 1), (100, 4), (2000, 1)])
def test_every_image_in_the_queue_has_its_picture(
    queue: ReviewQueue, rows: pa.Table, batch: int, actors: int
) -> None:
    table = pictured(rows, queue, batch, actors)
    queue.add(table)
    number = {uri: at for at, uri in enumerate(rows["uri"].to_pylist())}
    found = queue.table().to_pylist()
    assert len(found) == 4 * SIZE
    for row in found:
        pixels = np.asarray(Image.open(io.BytesIO(row["picture"])))
        assert abs(pixels.astype(int) - colour(number[row["uri"]])).max() <= 4
    expected = 4 * actors * SIZE * (1 + np.log(1000 / actors / SIZE))
    assert len(table) - table[PICTURE.name].null_count < 1.5 * expected


def test_a_part_keeps_those_of_its_own_queue(queue: ReviewQueue, rows: pa.Table) -> None:
    table = pictured(rows, queue, 8, 3)
    kept = pictures_for(queue, table)
    assert SIZE <= len(kept) - kept.null_count <= 4 * SIZE
    queue.add(table.drop_columns(PICTURE.name).append_column(PICTURE, kept))
    assert queue.table()["picture"].null_count == 0


def test_equal_images_do_not_all_get_one(queue: ReviewQueue) -> None:
    same = rows_of(np.tile(softmax(0, 1), (1000, 1)), CLASSES)
    queue = replace(queue, earlier=None)
    chosen = Shortlist(queue).choose(same)
    assert chosen.sum() < 12 * SIZE


def test_pictures_travel_from_the_parts_to_the_queue_and_not_into_the_table(
    local_store: Store, rows: pa.Table
) -> None:
    queue = ReviewQueue(SIZE, "softmax")
    close_run(local_store, pictured(rows, queue, 8, 2), CLASSES, rows_per_part=90, review=SIZE)
    found = read_table(local_store, "runs/00000000/review.parquet")
    assert found["picture"].null_count == 0
    (file,) = Path(local_store.uri).glob("data/*/*.parquet")
    published = read_table(local_store, str(file.relative_to(local_store.uri)))
    assert published.schema.names == rows.schema.names


def test_parts_of_an_earlier_version_have_none(local_store: Store, rows: pa.Table) -> None:
    new = pictured(rows.slice(0, 100), ReviewQueue(SIZE, "softmax"), 8, 1)
    mixed = pa.concat_tables([new, rows.slice(100, 50)], promote_options="default")
    close_run(local_store, mixed, CLASSES, rows_per_part=100, review=SIZE, identity=IDENTITY)
    found = read_table(local_store, "runs/00000000/review.parquet")
    assert 0 < found["picture"].null_count < len(found)


@pytest.mark.parametrize(("side", "expected"), [(8, 8), (224, 224), (384, PICTURE_PIXELS)])
def test_a_picture_is_no_larger_than_it_need_be(side: int, expected: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image = Image.open(io.BytesIO(small_jpeg(noise, PICTURE_PIXELS)))
    assert (image.format, image.size) == ("JPEG", (expected, expected))
