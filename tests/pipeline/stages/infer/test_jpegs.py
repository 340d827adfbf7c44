"""JPEG files that travel to an actor and are decoded there, with Pillow as the card's decoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from cvt import CvtImageProcessor
from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.schema import INTERNAL, JPEG
from pipeline.contract.spec import ModelSpec
from pipeline.model.families.cvt import CvtPreprocessing, load
from pipeline.stages.decode.settings import MOST_JPEG_BYTES
from pipeline.stages.infer import actor as actor_module
from pipeline.stages.infer import jpegs
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.jpegs import DevicePixels
from pipeline.stages.infer.settings import InferSettings
from tests.support.inputs.decoding import decoded
from tests.support.inputs.images import encode, noise, photograph
from tests.support.models.card import PillowCard
from tests.support.models.inference import predictor, prepare
from tests.support.models.oracle import SIZE, Oracle

pytestmark = pytest.mark.usefixtures("without_ray")

PREPROCESSING = CvtPreprocessing(CvtImageProcessor(size=SIZE))
BROKEN = b"\xff\xfe\x00\x08broken"


def broken(data: bytes) -> bytes:
    """With a header that is right, and tables that are not: known only to who decodes it."""
    start = data.index(b"\xff\xc4")
    return data[:start] + BROKEN + b"\xff\xc4\x00\x06\x00\xff\xff\xff" + data[start:]


FILES = {
    "plain.jpg": photograph(),
    "turned.jpg": photograph(70, 120, turn=6),
    "mirrored.jpg": photograph(200, 50, turn=7),
    "progressive.jpg": photograph(80, 81, progressive=True),
    "grey.jpg": encode(noise(50, 40).convert("L"), "JPEG"),
    "picture.png": encode(noise(50, 40), "PNG"),
    "inks.jpg": encode(noise(50, 40).convert("CMYK"), "JPEG"),
    "rgb.jpg": encode(noise(50, 40), "JPEG", keep_rgb=True),
    "strip.jpg": encode(noise(3000, 4), "JPEG"),
    "no-end.jpg": photograph()[:-200],
    "empty.jpg": b"",
    "text.jpg": b"<html>404</html>",
    "large.jpg": encode(Image.new("L", (2000, 1000)), "JPEG"),
    "heavy.jpg": photograph()[:-2] + bytes(MOST_JPEG_BYTES) + b"\xff\xd9",
}
FOR_THE_CARD = {"plain.jpg", "turned.jpg", "mirrored.jpg", "progressive.jpg", "grey.jpg"}


def actor(
    folder: Path, card: PillowCard | None, monkeypatch: pytest.MonkeyPatch, **output: Any
) -> Predictor:
    """On a CPU; with a card beside it if one is given."""
    found = DevicePixels(card, PREPROCESSING) if card else None
    monkeypatch.setattr(actor_module, "device_pixels", lambda settings: found)
    return predictor(prepare(folder, scores="logits", **output))


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["uri"]).name for row in rows]


def test_only_what_a_card_reads_alike_travels_as_a_file(tmp_path: Path) -> None:
    (table,) = decoded(tmp_path, FILES, "gpu")
    rows = table.to_pylist()
    assert {name for name, row in zip(names(rows), rows, strict=True) if row["_jpeg"]} == (
        FOR_THE_CARD
    )
    for row in rows:
        assert [row["_jpeg"], row["_pixels"]].count(None) == (1 if row["status"] == "ok" else 2)
    expected = pa.concat_tables(decoded(tmp_path, FILES, "fast"))
    described = expected.column_names[:-1]
    assert table.select(described).equals(expected.select(described))


def test_rows_are_those_of_the_cpu(
    tmp_path: Path, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = PillowCard()
    with_card = actor(checkpoint[1], card, monkeypatch)
    card.calls.clear()
    found = with_card(pa.concat_tables(decoded(tmp_path, FILES, "gpu")))
    expected = actor(checkpoint[1], None, monkeypatch)(
        pa.concat_tables(decoded(tmp_path, FILES, "fast"))
    )
    assert card.calls == [len(FOR_THE_CARD)]
    assert found.schema == expected.schema
    numbers = ("score", "topk_scores", "embedding")
    described = [name for name in expected.column_names if name not in numbers]
    assert found.select(described).to_pylist() == expected.select(described).to_pylist()
    for name in ("score", "embedding"):
        ours, theirs = (np.array(t[name].drop_null().to_pylist()) for t in (found, expected))
        np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_pixels_are_within_three_grey_levels_of_the_exact_ones(tmp_path: Path) -> None:
    table = pa.concat_tables(decoded(tmp_path, FILES, "gpu"))
    rows, pixels = DevicePixels(PillowCard(), PREPROCESSING).of(table)
    ok = [row for row in rows.to_pylist() if row["status"] == "ok"]
    assert pixels.shape == (len(ok), SIZE, SIZE, 3)
    for row, found in zip(ok, pixels.numpy(), strict=True):
        exact = PREPROCESSING.decode(
            Path(row["uri"]).read_bytes(), mode="exact", max_pixels=10**6
        ).pixels
        assert np.abs(found.astype(np.int16) - exact).mean() < 0.1, row["uri"]


def test_what_the_card_refuses_is_decoded_on_the_cpu_or_fails(tmp_path: Path) -> None:
    """Where the header gave no sign of it: then a row says what it says without a card."""
    good = photograph()
    marked = good[:20] + BROKEN + good[20:]
    files = {"a.jpg": good, "b.jpg": broken(good), "c.jpg": marked, "d.png": FILES["picture.png"]}
    table = pa.concat_tables(decoded(tmp_path, files, "gpu", thumbnail_rate=0.0))
    assert table["_jpeg"].null_count == 1
    rows, pixels = DevicePixels(PillowCard(refuses=(BROKEN,)), PREPROCESSING).of(table)
    expected = pa.concat_tables(decoded(tmp_path, files, "fast"))
    assert rows.to_pylist() == expected.drop_columns("_pixels").to_pylist()
    assert rows["status"].to_pylist() == ["ok", "failed", "ok", "ok"]
    assert pixels.shape == (3, SIZE, SIZE, 3)
    assert (pixels[0].int() - pixels[1].int()).abs().max() <= 2


def test_sizes_that_contradict_the_header_are_not_believed(tmp_path: Path) -> None:
    table = pa.concat_tables(decoded(tmp_path, {"a.jpg": photograph()}, "gpu"))
    lying = PillowCard()
    lying.decode = lambda files: [torch.zeros(3, 8, 8, dtype=torch.uint8)]  # type: ignore[method-assign]
    _, pixels = DevicePixels(lying, PREPROCESSING).of(table)
    assert pixels.float().std() > 10


@pytest.mark.parametrize("count", [0, 1])
def test_batches_without_files(tmp_path: Path, count: int) -> None:
    table = pa.concat_tables(decoded(tmp_path, {"a.png": FILES["picture.png"]}, "gpu"))
    rows, pixels = DevicePixels(PillowCard(), PREPROCESSING).of(table.slice(0, count))
    assert len(rows) == len(pixels) == count


def test_files_are_decoded_in_groups_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpegs, "MOST_BYTES", 2 * 90 * 60 * 3)
    files = {f"{n}.jpg": photograph() for n in range(5)} | {"x.jpg": photograph(300, 300)}
    card = PillowCard()
    DevicePixels(card, PREPROCESSING).of(pa.concat_tables(decoded(tmp_path, files, "gpu")))
    assert card.calls == [2, 2, 1, 1]


def test_no_room_to_resize_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(self: CvtPreprocessing, image: torch.Tensor, orientation: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(CvtPreprocessing, "resize", resize)
    table = pa.concat_tables(decoded(tmp_path, {"a.jpg": photograph()}, "gpu"))
    rows, pixels = DevicePixels(PillowCard(), PREPROCESSING).of(table)
    assert rows["status"].to_pylist() == ["ok"]
    assert pixels.float().std() > 10


def test_blocks_of_large_files_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.decode.task.GPU_BLOCK_BYTES", 2 * len(photograph()))
    files = {f"{n}.jpg": photograph() for n in range(5)}
    assert [len(table) for table in decoded(tmp_path, files, "gpu")] == [2, 2, 1]


def test_a_thumbnail_is_that_of_the_cpu(tmp_path: Path) -> None:
    files = {"a.jpg": photograph()}
    (ours,), (theirs,) = (decoded(tmp_path, files, mode, thumbnail_rate=1.0)
                          for mode in ("gpu", "fast"))  # fmt: skip
    assert ours["_thumbnail"] == theirs["_thumbnail"]
    assert ours["_thumbnail"].null_count == 0


class TestSelfCheck:
    """Of an actor, before its first image."""

    def test_a_decoder_that_is_far_off(
        self, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = PillowCard()
        right = card.decode
        card.decode = lambda files: [  # type: ignore[method-assign]
            None if image is None else image.flip(0) for image in right(files)
        ]
        with pytest.raises(RunError, match=r"grey levels off .*; use model.decode fast"):
            actor(checkpoint[1], card, monkeypatch)

    def test_a_decoder_that_does_not_decode(
        self, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(RunError, match="does not decode a common JPEG file"):
            actor(checkpoint[1], PillowCard(refuses=(b"",)), monkeypatch)


def test_decoding_on_gpus_needs_some(checkpoint: tuple[Oracle, Path]) -> None:
    model = prepare(checkpoint[1], decode="gpu")
    with pytest.raises(UsageError, match="gpu needs GPUs, and this run has none"):
        InferSettings.of(model, gpus=0, batch_size=4)
    assert InferSettings.of(model, gpus=1, batch_size=4).preprocessing is not None


def test_a_filter_that_is_not_for_cards(checkpoint: tuple[Oracle, Path], tmp_path: Path) -> None:
    checkpoint[0].save_pretrained(tmp_path)
    CvtImageProcessor(size=SIZE, resample=1).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"filter is number 1 of Pillow's; use model.decode exact"):
        load(ModelSpec(source=str(tmp_path), decode="gpu"))


def test_openvino_decodes_nothing_on_gpus() -> None:
    with pytest.raises(UsageError, match="drop one"):
        ModelSpec(source="x", decode="gpu", runtime="openvino")


def test_the_column_never_leaves_the_actor(
    tmp_path: Path, checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = actor(checkpoint[1], PillowCard(), monkeypatch)(
        pa.concat_tables(decoded(tmp_path, {"a.jpg": photograph()}, "gpu"))
    )
    travelling = {name for name in table.column_names if name.startswith("_")}
    assert travelling == set(INTERNAL.names)
    assert JPEG.name not in travelling
