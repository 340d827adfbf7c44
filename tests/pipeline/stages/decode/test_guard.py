"""Images that never end or that crash their decoder: each is a row, and nothing else suffers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline.contract.errors import DecodeError, RunError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages import graph
from pipeline.stages.allocation import allocate
from pipeline.stages.decode import guard
from pipeline.stages.decode.guard import Beside
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.nodes import Node
from pipeline.storage.filesystems import WorkerEnvironment
from tests.support.inputs.fetching import work
from tests.support.inputs.images import encode, noise
from tests.support.models.traps import (
    CRASH,
    EXIT,
    HANG,
    KILL,
    KILL_ONCE,
    SLEEP,
    SPIN,
    TrapPreprocessing,
)

GOOD = encode(noise(), "PNG")


def settings(**changes: Any) -> DecodeSettings:
    values: dict[str, Any] = {
        "preprocessing": TrapPreprocessing(8),
        "environment": WorkerEnvironment({}),
        "max_pixels": 10**6,
        "max_bytes": 10**6,
        "max_seconds": 1.5,
        "block_size": 8,
    }
    return DecodeSettings(**values | changes)


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    with Beside(settings()) as decoder:
        yield decoder


class TestBeside:
    """A process beside this one."""

    def test_it_decodes_as_this_one_does(self, beside: Beside) -> None:
        found = beside.read(GOOD, with_thumbnail=True)
        assert found.pixels is not None
        expected = TrapPreprocessing(8).decode(GOOD, mode="fast", max_pixels=10**6)
        assert (found.pixels == expected.pixels).all()
        assert found.columns["width"] == 40
        assert found.columns["_thumbnail"].startswith(b"\xff\xd8")

    def test_errors_are_those_of_the_decoder(self, beside: Beside) -> None:
        with pytest.raises(DecodeError, match="cannot identify") as caught:
            beside.read(b"no image", with_thumbnail=False)
        assert caught.value.code == "not_an_image"

    @pytest.mark.parametrize(
        ("trap", "code", "message"),
        [
            (SLEEP, "timeout", "it took longer than 1.5 s to decode"),
            (SPIN, "timeout", "it took longer than 1.5 s to decode"),
            (CRASH, "corrupt", "the decoder's process ended on it: SIGSEGV"),
            (EXIT, "corrupt", "the decoder's process ended on it: exit code 3"),
            (KILL, "corrupt", "the decoder's process ended on it: SIGKILL"),
        ],
        ids=str,
    )
    def test_what_stops_it_is_the_images_error(
        self, beside: Beside, trap: bytes, code: str, message: str
    ) -> None:
        with pytest.raises(DecodeError) as caught:
            beside.read(trap, with_thumbnail=False)
        assert (caught.value.code, str(caught.value)) == (code, message)
        assert beside.read(GOOD, with_thumbnail=False).pixels is not None

    def test_somebody_elses_kill_costs_no_image(self, beside: Beside, tmp_path: Path) -> None:
        data = KILL_ONCE + os.fsencode(tmp_path / "mark") + b"\n" + GOOD
        assert beside.read(data, with_thumbnail=False).pixels is not None

    def test_it_ends_with_its_user(self) -> None:
        with Beside(settings()) as decoder:
            decoder.read(GOOD, with_thumbnail=False)
            assert decoder._started is not None
            process, _ = decoder._started
        assert process.poll() is not None

    def test_one_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with (
            Beside(settings()) as decoder,
            pytest.raises(RunError, match=r"did not start \(exit code 1\); start the same command"),
        ):
            decoder.read(GOOD, with_thumbnail=False)

    def test_memory_is_limited(self) -> None:
        taken = f"""
import resource, sys
from pipeline.stages.decode.guard import _limit_memory
_limit_memory({10**6})
bytearray({2**29})
try:
    bytearray({2**31})
except MemoryError:
    sys.exit(7)
"""
        done = subprocess.run([sys.executable, "-c", taken], check=False)
        assert done.returncode == 7


def test_outside_of_rays_workers_no_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "setitimer", lambda *timer: pytest.fail("a timer is set"))
    with guard.decoder(settings()) as here:
        assert here.read(GOOD, with_thumbnail=False).pixels is not None


def test_rows_go_on_at_once_after_an_image_that_took_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a block of them would let the run be taken for one that stands still."""
    monkeypatch.setattr(guard, "_attempt", lambda: 1)
    files = [GOOD, SLEEP, GOOD, GOOD]
    tables = list(decode_block(_work(tmp_path, files), settings()))
    assert [len(table) for table in tables] == [2, 2]
    assert [table["status"].to_pylist() for table in tables] == [["ok", "failed"], ["ok", "ok"]]


def _work(directory: Path, files: list[bytes]) -> pa.Table:
    for number, data in enumerate(files):
        (directory / f"{number:02d}").write_bytes(data)
    return work(*({"uri": str(directory / f"{n:02d}")} for n in range(len(files))))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_block_of_traps_through_ray(tmp_path: Path) -> None:
    """More of them in one task than Ray tries it again; and another task that has none."""
    files = [GOOD] * 40
    traps = {5: SLEEP, 11: CRASH, 12: CRASH, 20: SPIN, 33: EXIT}
    for place, trap in traps.items():
        files[place] = trap
    blocks = [_work(tmp_path, files)]
    (tmp_path / "good").mkdir()
    blocks.append(_work(tmp_path / "good", [GOOD] * 10))
    room = allocate(ComputeSpec(num_actors=1), [Node(cpus=ray.cluster_resources()["CPU"])])
    decoded = graph.decode_stage(
        graph.source(blocks, settings()), partial(decode_block, settings=settings()), room
    )
    rows = {row["uri"]: row for row in decoded.take_all()}
    assert len(rows) == 50
    expected = {
        str(tmp_path / f"{place:02d}"): "timeout" if trap in HANG else "corrupt"
        for place, trap in traps.items()
    }
    failed = {uri: row["error_code"] for uri, row in rows.items() if row["status"] != "ok"}
    assert failed == expected
