"""The arithmetic of whole runs: chosen for a new output, kept by one that has rows."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.provenance import Identity
from pipeline.contract.spec import Dtype, InputSpec, ModelSpec, OutputSpec, PolicySpec, RunSpec
from pipeline.model.arithmetic import Place
from pipeline.model.loaded import LoadedModel
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.runs.run import forecast, run
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.images import write_images
from tests.support.inputs.world import Row, table_of
from tests.support.outputs.closed_runs import close_run, rows_of

SpecOf = Callable[..., RunSpec]

OLD_CPU = Place("CPU", frozenset({"float32"}))
NEW_CPU = Place("CPU", frozenset({"float32", "bfloat16", "float16"}))
BY_HARDWARE = "bfloat16, which this CPU has in hardware"


@pytest.fixture
def spec(tmp_path: Path, checkpoint: Path) -> SpecOf:
    write_images(tmp_path / "in", 6)

    def make(dtype: Any = "auto", **policy: Any) -> RunSpec:
        return RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "in"),)),
            model=ModelSpec(source=str(checkpoint), dtype=dtype),
            output=OutputSpec(uri=str(tmp_path / "out"), top_k=5),
            policy=PolicySpec(**policy),
        )

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


Hardware = Callable[[Place], None]


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Hardware:
    """Says where the run computes, whatever this machine is."""

    def here(place: Place) -> None:
        monkeypatch.setattr("pipeline.runs.run.places", lambda compute, debug: [place])

    here(NEW_CPU)
    return here


def identity(spec: RunSpec, dtype: Dtype) -> Identity:
    return LoadedModel.load(spec, dtype).identity


def close(store: Store, spec: RunSpec, dtype: Dtype) -> str:
    """A closed run whose rows are of other images; its id."""
    scores = np.array([[0.75, 0.25]], np.float32)
    rows = rows_of(scores, ["a", "b"], prefix=dtype)
    return close_run(store, rows, ["a", "b"], identity=identity(spec, dtype)).run_id


def leave_open(store: Store, spec: RunSpec, dtype: Dtype, rows: int) -> str:
    """A run that was interrupted; its id."""
    found = OpenRun.begin(store, OpenRecord(identity=identity(spec, dtype)))
    if rows:
        table = table_of([Row(f"{n}.jpg", "A") for n in range(rows)])
        write_table(store, found.part_name(0), PartFooter().attach(table))
    return found.run_id


@pytest.fixture
def chosen(caplog: pytest.LogCaptureFixture) -> Callable[[RunSpec], str]:
    """What a dry run says of its arithmetic."""
    caplog.set_level(logging.INFO, "pipeline")

    def of(spec: RunSpec) -> str:
        caplog.clear()
        forecast(spec)
        (line,) = (text for text in caplog.messages if text.startswith("<model.dtype> auto: "))
        return line.removeprefix("<model.dtype> auto: ")

    return of


Chosen = Callable[[RunSpec], str]


class TestWhatDecides:
    def test_hardware_for_a_new_output(
        self, spec: SpecOf, store: Store, hardware: Hardware, chosen: Chosen
    ) -> None:
        assert chosen(spec()) == BY_HARDWARE
        hardware(OLD_CPU)
        assert chosen(spec()) == "float32, as this CPU has no bfloat16 in hardware"
        assert not store.list("")

    @pytest.mark.usefixtures("hardware")
    def test_closed_rows(self, spec: SpecOf, store: Store, chosen: Chosen) -> None:
        run_id = close(store, spec(), "float32")
        expected = f"float32, as in the closed run {run_id}"
        assert chosen(spec()) == expected
        assert chosen(spec(allow_mixed=True)) == expected
        assert chosen(spec(full=True)) == BY_HARDWARE, "no row of it stays"

    @pytest.mark.usefixtures("hardware")
    def test_the_newest_of_closed_rows(self, spec: SpecOf, store: Store, chosen: Chosen) -> None:
        close(store, spec(), "float32")
        run_id = close(store, spec(), "float16")
        assert chosen(spec(allow_mixed=True)) == f"float16, as in the closed run {run_id}"

    @pytest.mark.usefixtures("hardware")
    def test_rows_of_the_run_that_is_continued(
        self, spec: SpecOf, store: Store, chosen: Chosen
    ) -> None:
        run_id = leave_open(store, spec(), "float32", rows=2)
        expected = f"float32, as in the unfinished run {run_id}"
        assert chosen(spec()) == expected
        assert chosen(spec(full=True)) == expected, "what it has done stays"
        assert chosen(spec(discard_open_run=True)) == BY_HARDWARE

    @pytest.mark.usefixtures("hardware")
    def test_closed_rows_where_the_open_run_is_discarded_or_empty(
        self, spec: SpecOf, store: Store, chosen: Chosen
    ) -> None:
        closed = close(store, spec(), "float16")
        leave_open(store, spec(), "float32", rows=0)
        assert chosen(spec()) == f"float16, as in the closed run {closed}"
        leave_open(store, spec(), "float32", rows=1)
        assert chosen(spec(discard_open_run=True)).startswith("float16")


@pytest.mark.usefixtures("ray_local")
class TestRuns:
    @pytest.mark.usefixtures("hardware")
    def test_what_was_chosen_stands_in_the_manifest(
        self, spec: SpecOf, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "pipeline")
        result = run(spec())
        assert result.counts == Counts(listed=6, ok=6, failed=0, skipped=0)
        assert f"<model.dtype> auto: {BY_HARDWARE}" in caplog.messages
        assert not [line for line in caplog.messages if "emulated" in line]
        manifest = store.read_json(f"runs/{result.run_id}/manifest.json")
        assert manifest["spec"]["model"]["dtype"] == "auto"
        assert manifest["model"]["dtype"] == manifest["identity"]["dtype"] == "bfloat16"
        assert manifest["arithmetic"] == BY_HARDWARE
        told = identity(spec("bfloat16"), "bfloat16")
        assert manifest["identity"]["fingerprint"] == told.fingerprint
        assert run(spec("bfloat16")).counts.skipped == 6, "auto and the word itself are one thing"

    def test_a_float32_output_stays_so_on_a_machine_with_bfloat16(
        self, spec: SpecOf, hardware: Hardware, tmp_path: Path
    ) -> None:
        hardware(OLD_CPU)
        assert run(spec()).manifest.model.dtype == "float32"
        hardware(NEW_CPU)
        write_images(tmp_path / "in" / "new", 3)
        night = run(spec())
        assert (night.counts, night.exit_code) == (Counts(9, 3, 0, 6), 0)
        assert night.manifest.model.dtype == "float32"
        with pytest.raises(UsageError, match="dtype: float32 -> bfloat16"):
            run(spec("bfloat16"))


class TestHardwareThatDoesNotSuit:
    def test_emulation_is_one_line_before_the_run(
        self, spec: SpecOf, hardware: Hardware, caplog: pytest.LogCaptureFixture
    ) -> None:
        hardware(OLD_CPU)
        forecast(spec("bfloat16"))
        assert caplog.messages == [
            "bfloat16 is emulated on this CPU: about three times slower than float32; drop "
            "<model.dtype> or say auto"
        ]

    def test_tf32_is_refused_and_leaves_nothing_behind(
        self, spec: SpecOf, store: Store, hardware: Hardware
    ) -> None:
        hardware(NEW_CPU)
        for begin in (forecast, run):
            with pytest.raises(UsageError, match=r"tf32 needs NVIDIA GPUs .* run on this CPU"):
                begin(spec("tf32"))
        assert not store.list("")
