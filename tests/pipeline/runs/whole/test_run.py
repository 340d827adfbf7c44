"""Whole runs on a local Ray: every kind of image and of failure, and what later runs make of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from cvt.preprocessing.decode import decode_image
from pipeline.contract.errors import ExitCode
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import (
    ComputeSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.runs.result import RunResult
from pipeline.runs.run import run
from tests.support.inputs.images import encode, noise
from tests.support.inputs.tars import tar_bytes
from tests.support.models.oracle import Oracle, save_oracle
from tests.support.outputs.found import published_rows

pytestmark = pytest.mark.usefixtures("ray_local")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8
    return encode(noise(60, 40), "JPEG", exif=exif, quality=95)


def transparent(mode: str) -> Image.Image:
    image = noise().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def palette() -> bytes:
    return encode(noise().convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=3)


def deep() -> bytes:
    grey = np.random.default_rng(0).integers(0, 2**16, (50, 40), dtype=np.uint16)
    return encode(Image.fromarray(grey), "PNG")


def animated() -> bytes:
    frames = [noise(seed=n) for n in range(3)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


GOOD: dict[str, Callable[[], bytes]] = {
    "rgb.jpg": lambda: encode(noise(seed=1), "JPEG"),
    "wide.png": lambda: encode(noise(300, 20), "PNG"),
    "strip.png": lambda: encode(noise(2000, 3), "PNG"),
    "tiny.png": lambda: encode(noise(1, 1), "PNG"),
    "grey.jpg": lambda: encode(noise().convert("L"), "JPEG"),
    "grey-alpha.png": lambda: encode(transparent("LA"), "PNG"),
    "alpha.webp": lambda: encode(transparent("RGBA"), "WEBP", lossless=True),
    "palette.png": palette,
    "cmyk.jpg": lambda: encode(noise().convert("CMYK"), "JPEG"),
    "deep.png": deep,
    "bilevel.tif": lambda: encode(noise().convert("1"), "TIFF"),
    "turned.jpeg": turned,
    "animated.gif": animated,
    "a b#1?%20ü.BMP": lambda: encode(noise(), "BMP"),
    "sub/dir.jpg/x.avif": lambda: encode(noise(), "AVIF"),
    "png-in-disguise.jpg": lambda: encode(noise(seed=2), "PNG"),
}
BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty_file"),
    "text.jpg": (b"<!doctype html><title>404</title>", "not_an_image"),
    "cut.jpg": (encode(noise(), "JPEG")[:700], "truncated"),
    "bomb.png": (encode(Image.new("1", (4000, 3000)), "PNG"), "too_many_pixels"),
    "heic.png": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
    "huge.png": (bytes(300_000), "too_large"),
}
MEMBERS = {f"m/{n}.png": encode(noise(seed=10 + n), "PNG") for n in range(5)}
SHARD = tar_bytes({**MEMBERS, "bad.jpg": b"bad", "labels.txt": b"1"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, Path]:
    folder = tmp_path_factory.mktemp("checkpoint")
    return save_oracle(folder), folder


@pytest.fixture
def spec(checkpoint: tuple[Oracle, Path], tmp_path: Path) -> RunSpec:
    return RunSpec(
        inputs=InputSpec(uris=(str(tmp_path / "in"),), max_pixels=10**6, max_bytes=200_000),
        model=ModelSpec(source=str(checkpoint[1]), dtype="float32", decode="exact"),
        output=OutputSpec(uri=str(tmp_path / "out"), top_k=3, embeddings=True),
        compute=ComputeSpec(num_actors=1),
        policy=PolicySpec(max_failure_rate=1),
    )


def rows_of(result: RunResult, output: Path) -> dict[str, dict[str, Any]]:
    """Every published row by uri, in which the books of the run must be found again."""
    rows = published_rows(output)
    found = {str(row["uri"]): dict(row) for row in rows}
    assert len(found) == len(rows)
    counts = result.counts
    assert counts.listed == counts.ok + counts.failed + counts.skipped
    return found


@torch.no_grad()
def reference(model: Oracle, folder: Path, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (7) and embedding (48) by transformers, from preprocessing to the head."""
    load: Any = AutoImageProcessor.from_pretrained
    values = load(folder)(decode_image(data), return_tensors="pt")["pixel_values"]
    embedding = model.layernorm(model.cvt(values).cls_token_value).mean(dim=1)
    return model(values).logits[0], embedding[0]


def test_every_image_gets_its_row(
    spec: RunSpec, checkpoint: tuple[Oracle, Path], tmp_path: Path
) -> None:
    good = {name: make() for name, make in GOOD.items()}
    for name, data in {**good, **{name: data for name, (data, _) in BAD.items()}}.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "in/dangling.jpg").symlink_to("gone.jpg")
    (tmp_path / "in/s.tar").write_bytes(SHARD)
    (tmp_path / "in/cut.tar").write_bytes(SHARD[:2000])
    (tmp_path / "in/notes.txt").write_bytes(b"no image")

    # Small blocks, batches that do not divide them, files that do not divide the rows.
    compute = replace(spec.compute, block_size=4, batch_size=3)
    output = replace(spec.output, rows_per_file=7)
    result = run(replace(spec, compute=compute, output=output))
    rows = rows_of(result, tmp_path / "out")
    sizes = [file.rows for file in result.manifest.files]
    assert sizes == [7] * (len(rows) // 7) + [len(rows) % 7] * (len(rows) % 7 > 0)
    root = tmp_path / "in"
    failures = {str(root / name): code for name, (_, code) in BAD.items()}
    failures |= {
        f"{root}/dangling.jpg": "not_found",
        f"{root}/s.tar#bad.jpg": "not_an_image",
        f"{root}/cut.tar": "shard_truncated",
    }
    expected = {str(root / name): data for name, data in good.items()}
    expected |= {f"{root}/s.tar#{name}": data for name, data in MEMBERS.items()}
    in_cut = {uri for uri in rows if uri.startswith(f"{root}/cut.tar#")}

    assert rows.keys() - in_cut == expected.keys() | failures.keys()
    assert {uri: rows[uri]["error_code"] for uri in failures} == failures
    assert result.manifest.failures == {
        code: list(failures.values()).count(code) for code in failures.values()
    }
    assert result.counts.ok == len(expected) + len(in_cut)
    assert result.counts.failed == len(failures)
    for uri, data in expected.items():
        row = rows[uri]
        logits, embedding = reference(*checkpoint, data)
        assert row["status"] == "ok", row
        best = logits.softmax(0).topk(3)
        assert row["topk_ids"] == best.indices.tolist(), uri
        assert row["label"] == row["topk_labels"][0] == f"class {row['label_id']} ü"
        assert torch.tensor(row["topk_scores"]).allclose(best.values, atol=1e-4), uri
        assert torch.tensor(row["embedding"]).allclose(embedding, atol=1e-3), uri
        image = decode_image(data)
        assert (row["width"], row["height"]) == image.size


def photos(directory: Path, *names: str, seed: int = 0) -> None:
    directory.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (directory / name).write_bytes(encode(noise(seed=seed + number), "PNG"))


def test_later_runs_do_what_is_new_and_changed(spec: RunSpec, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    photos(folder, "a.png", "b.png", "c.png")
    (folder / "bad.png").write_bytes(b"bad")
    (folder / "s.tar").write_bytes(tar_bytes(MEMBERS))
    first = run(spec)
    assert first.counts == Counts(listed=9, ok=8, failed=1, skipped=0)
    rows = rows_of(first, tmp_path / "out")

    second = run(spec)
    assert second.counts == Counts(listed=9, ok=0, failed=0, skipped=9)
    assert rows_of(second, tmp_path / "out") == rows
    assert second.manifest.files == ()

    photos(folder, "b.png", "d.png", seed=50)
    (folder / "c.png").unlink()
    more = {**MEMBERS, "m/new.png": encode(noise(seed=60), "PNG")}
    (folder / "s.tar").write_bytes(tar_bytes(more))
    third = run(spec)
    # a.png and bad.png stand; b.png and the shard have changed, d.png is new, c.png is gone.
    assert third.counts == Counts(listed=10, ok=8, failed=0, skipped=2)
    assert third.manifest.plan["changed"] == 2
    assert third.manifest.plan["vanished"] == 1
    newest = {str(row["uri"]): row for row in _rows_of_run(third, tmp_path / "out")}
    names = {uri.removeprefix(f"{folder}/") for uri in newest}
    assert names == {"b.png", "c.png", "d.png", *(f"s.tar#{name}" for name in more)}
    assert newest[str(folder / "c.png")]["status"] == "vanished"
    uri = str(folder / "b.png")
    assert newest[uri]["source_version"] != rows[uri]["source_version"]
    assert newest[uri]["embedding"] != rows[uri]["embedding"]

    full = run(replace(spec, policy=PolicySpec(full=True, max_failure_rate=0.1)))
    assert full.counts == Counts(listed=10, ok=9, failed=1, skipped=0)
    assert (full.failure_rate, full.exit_code) == (0.1, ExitCode.OK)
    strict = replace(spec, policy=PolicySpec(max_failure_rate=0))
    assert run(strict).exit_code is ExitCode.OK  # of this run, in which nothing was left to do


def _rows_of_run(result: RunResult, output: Path) -> list[dict[str, Any]]:
    table = ds.dataset(output / f"data/run={result.run_id}").to_table()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_too_many_failures_close_the_run_with_an_exit_code_of_their_own(
    spec: RunSpec, tmp_path: Path
) -> None:
    photos(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    result = run(replace(spec, policy=PolicySpec(max_failure_rate=0.2)))
    assert result.failure_rate == 0.25
    assert result.exit_code is ExitCode.TOO_MANY_FAILURES
    assert len(rows_of(result, tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "_open").is_dir() or not list((tmp_path / "out/_open").iterdir())
    report = (tmp_path / "out" / f"runs/{result.run_id}/report.html").read_text()
    assert "not_an_image" in report
