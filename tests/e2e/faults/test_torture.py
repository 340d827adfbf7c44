"""Every file of Pillow's own test images goes through the job: as many rows as files, whatever is
in them, and each row says what Pillow says of the file."""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from tests.support.commands import command
from tests.support.processes import process
from tests.support.processes.victims import descendants

pytestmark = pytest.mark.ray

PATIENCE_SECONDS = 480
MOST_MEMORY = 1536 * 2**20
"""Of one process, in bytes: a worker with torch and an image of 89 million pixels in RGBX."""
PAGE = os.sysconf("SC_PAGE_SIZE")

# Argument: a file with a name a line. Output: what Pillow alone says of each of these files.
ORACLE = """
import io, json, sys, warnings
from pathlib import Path
from typing import Any
from PIL import Image

warnings.simplefilter("ignore")
for name in Path(sys.argv[1]).read_text().splitlines():
    try:
        image = Image.open(io.BytesIO(Path(name).read_bytes()))
        verdict = "bomb" if image.width * image.height > Image.MAX_IMAGE_PIXELS else "ok"
        if verdict == "ok":
            image.load()
    except Image.UnidentifiedImageError:
        verdict = "unidentified"
    except Image.DecompressionBombError:
        verdict = "bomb"
    except Exception as error:
        verdict = "truncated" if "truncated" in str(error) else "broken"
    print(json.dumps([name, verdict]))
"""
BROKEN: set[str | None] = {"corrupt", "truncated", "unsupported_format", "not_an_image"}
FITTING: dict[str, set[str | None]] = {
    "ok": {None},
    "bomb": {"too_many_pixels"},
    "unidentified": BROKEN,
    "truncated": {"truncated", "not_an_image"},  # TGA has no signature: broken ones are no image
    "broken": BROKEN,
}
KNOWN = {
    "bmp/README.txt": "not_an_image",
    "bmp/b/badheadersize.bmp": "unsupported_format",
    "bmp/b/reallybig.bmp": "too_many_pixels",
    "bmp/b/shortfile.bmp": "truncated",
    "broken_data_stream.png": "corrupt",
    "decompression_bomb.gif": "too_many_pixels",
    "hopper_bad_checksum.msp": "corrupt",
    "truncated_jpeg.jpg": "truncated",
}

READ_BEYOND_PILLOW = {
    "chunk_no_fctl.png", "rgb32bf.bmp", "rgb16-231.bmp", "rgb32-111110.bmp", "rgba16-4444.bmp",
    "rgba32abf.bmp", "expected_to_read.jp2", "hopper.heif",
    "hopper_unknown_pixel_mode.tif",
    "invalid_header_length.jp2", "png_decompression_dos.png", "tiff_overflow_rows_per_strip.tif",
    "tiff_tiled_jpeg_oob_read.tif", "timeout-dedc7a4ebd856d79b4359bbcc79e8ef231ce38f6.psd",
    "unknown_compression_method.png",
}  # fmt: skip
"""Their pixels are whole; what stops Pillow is beside them, or a variant that it does not have."""
OTHERWISE = {
    "blp1_jpeg2.blp": "corrupt",
    "oom-8ed3316a4109213ca96fb8a256a0bfefdece1461.icns": "corrupt",
}
"""Sizes are checked against each other first: of an icon and its content, of a texture and the JPEG
file in it, whose rows of 64,512 pixels Pillow shows as rows of 425."""


def differs_knowingly(name: str, code: str | None) -> bool:
    """EPS is a program: it is never run, though Pillow does so where there is Ghostscript."""
    if name.endswith(".eps"):
        return code == "unsupported_format"
    return (name in READ_BEYOND_PILLOW and code is None) or OTHERWISE.get(name, "") == code


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> Path:
    """Tests/images of the source distribution of the Pillow that is installed, kept in pytest's
    cache. It comes from wherever pip is told to look."""
    assert request.config.cache is not None
    release = f"pillow-{version('pillow')}"
    cache = request.config.cache.mkdir("torture")
    directory = cache / release / "Tests/images"
    if not directory.exists():
        with tarfile.open(_download(release, cache)) as tar:
            wanted = [m for m in tar if m.name.startswith(f"{release}/Tests/images/")]
            tar.extractall(cache, wanted, filter="data")
    return directory


def _download(release: str, cache: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache))
    requirement = release.replace("-", "==")
    done = subprocess.run(
        [*pip, "--no-binary", "pillow", requirement], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"pip could not download the source distribution of {requirement}")
    return cache / f"{release}.tar.gz"


@pytest.mark.timeout(900)
def test_every_test_image_of_pillow(images: Path, tmp_path: Path, checkpoint: Path) -> None:
    files = sorted(str(path) for path in images.rglob("*") if path.is_file())
    assert len(files) > 1000
    listed = tmp_path / "files.txt"
    listed.write_text("\n".join(files))

    peaks = _watched_run(
        tmp_path / "log",
        *("classify", listed, "--output", tmp_path / "out", "--model", checkpoint),
        *("--max-failure-rate", "1", "--num-actors", "1"),
    )
    workers = {title: most for title, most in peaks.items() if title.startswith("ray::")}
    assert any("decode_block" in title for title in workers), peaks
    assert max(workers.values()) < MOST_MEMORY, peaks

    rows: list[dict[str, Any]] = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    codes = {row["uri"]: row["error_code"] for row in rows}
    members = {uri: code for uri, code in codes.items() if ".tar#" in uri}
    tars = {uri.partition("#")[0] for uri in members}
    assert tars == {name for name in files if name.endswith(".tar")}
    assert set(members.values()) == {None}
    assert codes.keys() - members.keys() == set(files) - tars
    assert len(rows) == len(codes), "one row for each"

    said = _oracle(listed)
    misfits = {
        (Path(name).name, said[name], code)
        for name, code in codes.items()
        if name not in members
        and code not in FITTING[said[name]]
        and not differs_knowingly(Path(name).name, code)
    }
    assert not misfits
    known = {name: codes[str(images / name)] for name in KNOWN}
    assert known == KNOWN
    assert Counter(codes.values())[None] > 800


def _watched_run(log: Path, *arguments: str | Path) -> dict[str, int]:
    """Run a job that must end well and lose no worker; the most memory of each kind of process."""
    peaks: defaultdict[str, int] = defaultdict(int)
    job, *rest = map(str, arguments)
    give_up = time.monotonic() + PATIENCE_SECONDS
    running = process.start(command(job, *rest), log=log)
    try:
        while running.poll() is None and time.monotonic() < give_up:
            for pid, title in descendants(running.pid).items():
                peaks[title] = max(peaks[title], _memory(pid))
            time.sleep(0.5)
        assert running.poll() == 0, process.log_tail(log)
        # What Ray tells the driver of a task or an actor whose process has died.
        assert "will be retried" not in log.read_text(errors="replace")
    finally:
        process.stop(running)
    return peaks


def _memory(pid: int) -> int:
    """Resident bytes of a process that are its own, not of Ray's object store."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:  # it has ended meanwhile
        return 0
    return (int(resident) - int(shared)) * PAGE


def _oracle(listed: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, listed], capture_output=True, text=True, check=True
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())
