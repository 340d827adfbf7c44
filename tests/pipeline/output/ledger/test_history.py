"""What a new run may stand beside: closed runs of the same identity, open runs of its own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.errors import DamagedFileError, UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.provenance import Identity
from pipeline.contract.spec import (
    FIRST_EXTENSIONS,
    CompactSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RunSpec,
)
from pipeline.model.loaded import LoadedModel
from pipeline.monitoring.comparison import RowsSeen
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.plan.sightings import Sightings
from pipeline.runs.compact.job import compact
from pipeline.runs.run import forecast, run
from pipeline.sources.inventory import inventory
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.inputs.world import SHARD_NAMES, Row, listing_of, table_of
from tests.support.outputs.closed_runs import BARE, closed

OLD = replace(BARE, fingerprint="f0")


@pytest.mark.parametrize(
    ("inputs", "vanished"),
    [
        (["/lists/a.txt"], ["/photos/1.jpg", "s3://b/x.jpg"]),
        (["/photos"], ["/photos/1.jpg"]),
        (["s3://b/*.jpg"], ["s3://b/x.jpg"]),
        (["/lists/a.txt", "/photos"], ["/photos/1.jpg"]),
        (["/other"], []),
    ],
)
def test_vanished_of_these_inputs(
    local_store: Store, inputs: list[str], vanished: list[str]
) -> None:
    """A list names images anywhere: what a run over the same list had, came from it."""
    rows = [Row("/photos/1.jpg", "A"), Row("s3://b/x.jpg", "A"), Row("/photos/2.jpg", "A")]
    closed(local_store, "1", rows, inputs=("/lists/a.txt",))
    history = History.load(local_store)
    sightings = Sightings(history.ledger(SHARD_NAMES))
    (listing,) = listing_of({"/photos/2.jpg": "A"})
    sightings.meet_images(listing)
    assert history.vanished(sightings.vanished(), inputs) == vanished


class TestLiveRuns:
    def test_none(self, store: Store) -> None:
        history = History.load(store)
        assert history.runs == ()
        assert len(history.ledger(SHARD_NAMES)) == 0
        history.check(BARE)

    def test_newest_first(self, store: Store) -> None:
        for number in (2, 1, 3):
            closed(store, f"2026010{number}", [Row(f"{number}.jpg", "A")])
        history = History.load(store)
        assert [r.run_id for r in history.runs] == ["20260103", "20260102", "20260101"]
        assert len(history.ledger(SHARD_NAMES)) == 3

    def test_full_run_supersedes_what_was_before(self, local_store: Store) -> None:
        closed(local_store, "1", [Row("a.jpg", "A")], identity=OLD)
        closed(local_store, "2", [Row("a.jpg", "A")], full=True)
        closed(local_store, "3", [Row("b.jpg", "A")])
        history = History.load(local_store)
        assert [r.run_id for r in history.runs] == ["3", "2"]
        history.check(BARE)

    def test_newest_row_of_a_uri_counts(self, local_store: Store) -> None:
        closed(local_store, "1", [Row("a.jpg", "A", "timeout")])
        closed(local_store, "2", [Row("a.jpg", "B")])
        ledger = History.load(local_store).ledger(SHARD_NAMES)
        assert len(ledger) == 1
        assert not ledger.images.failures.any()

    def test_run_without_a_manifest_does_not_count(self, local_store: Store) -> None:
        """A publication that broke off before it: another will finish it."""
        closed(local_store, "1", [Row("a.jpg", "A")])
        local_store.write_bytes("runs/2/report.html", b"")
        assert [r.run_id for r in History.load(local_store).runs] == ["1"]


class TestIdentity:
    def test_refusal_shows_both_sides_and_the_way_out(self, local_store: Store) -> None:
        closed(local_store, "1", [], identity=replace(OLD, preprocessing={"size": 384}))
        with pytest.raises(UsageError) as refusal:
            History.load(local_store).check(BARE)
        message = str(refusal.value)
        assert "fingerprint: f0 -> f1" in message
        assert "preprocessing.size: 384 -> 224" in message
        assert "preprocessing.crop_pct: None -> 0.875" in message
        assert "top_k" not in message
        assert "closed run 1" in message
        assert "policy.full" in message
        assert "policy.allow_mixed" in message
        assert "\n" not in message

    def test_every_live_run_is_looked_at(self, local_store: Store) -> None:
        closed(local_store, "1", [], identity=OLD)
        closed(local_store, "2", [])
        with pytest.raises(UsageError, match="closed run 1"):
            History.load(local_store).check(BARE)

    @pytest.mark.parametrize(
        ("ours", "inputs", "named"),
        [
            (replace(BARE, top_k=1), {"uris": ["in"]}, "top_k: 5 -> 1"),
            (BARE, {"uris": ["in", "more"]}, "inputs.uris: ['in'] -> ['in', 'more']"),
        ],
        ids=["settings", "inputs"],
    )
    def test_open_run_is_finished_by_its_own_command(
        self, local_store: Store, ours: Identity, inputs: dict[str, Any], named: str
    ) -> None:
        record = OpenRecord(identity=BARE, inputs={"uris": ["in"]})
        open_run = OpenRun.begin(local_store, record)
        open_run.check(BARE, {"uris": ["in"]})
        with pytest.raises(UsageError) as refusal:
            open_run.check(ours, inputs)
        message = str(refusal.value)
        assert named in message
        assert open_run.run_id in message
        assert "policy.discard_open_run" in message


SpecOf = Callable[..., RunSpec]
WRITTEN = Path(__file__).parents[2] / "contract/written/first.json"


class TestCommand:
    """What the job does with it. Nothing is new in these runs, so nothing starts Ray."""

    @pytest.fixture
    def spec(self, tmp_path: Path, checkpoint: Path) -> SpecOf:
        (tmp_path / "in").mkdir()
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "in" / name).write_bytes(b"never read")

        def make(*, top_k: int = 3, **policy: Any) -> RunSpec:
            return RunSpec(
                inputs=InputSpec(uris=(str(tmp_path / "in"),)),
                model=ModelSpec(source=str(checkpoint)),
                output=OutputSpec(uri=str(tmp_path / "out"), top_k=top_k),
                policy=PolicySpec(**policy),
            )

        return make

    def finish_all(self, spec: RunSpec) -> Store:
        """An output in which a closed run has every listed image."""
        store = Store(spec.output.uri)
        listed = [row for table in inventory(spec.inputs) for row in table.to_pylist()]
        rows = [Row(row["uri"], row["source_version"]) for row in listed]
        identity = LoadedModel.load(spec, "float32").identity
        closed(store, "20260101T000000Z-1", rows, identity=identity)
        return store

    def test_same_command_finds_nothing_new(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        result = run(spec())
        assert result.counts == Counts(listed=2, ok=0, failed=0, skipped=2)
        assert result.exit_code == 0
        assert len(store.list("data")) == 1
        assert len(list(store.children("runs"))) == 2
        assert store.read_json("latest.json")["run_id"] == result.run_id
        assert not store.list("_open")
        manifest = store.read_json(f"runs/{result.run_id}/manifest.json")
        keys = list(json.loads(WRITTEN.read_bytes()))
        keys.insert(keys.index("identity") + 1, "arithmetic")  # which later versions also write
        assert list(manifest) == keys, "in their order"

    def test_a_damaged_manifest_ends_the_command_by_its_name(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        store.write_bytes("runs/20260101T000000Z-1/manifest.json", b'{"run_id": 1}')
        with pytest.raises(DamagedFileError, match=r"20260101T000000Z-1/manifest\.json is damaged"):
            run(spec())
        assert not store.list("_open")

    def test_other_settings_are_refused_and_leave_no_trace(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        before = store.list("")
        with pytest.raises(UsageError, match="top_k: 3 -> 2") as refusal:
            run(spec(top_k=2))
        assert int(refusal.value.exit_code) == 2
        assert store.list("") == before

    def test_other_settings_are_allowed_when_asked(self, spec: SpecOf) -> None:
        self.finish_all(spec())
        assert run(spec(top_k=2, allow_mixed=True)).counts.skipped == 2

    def test_open_run_of_other_settings_is_refused_until_discarded(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        identity = LoadedModel.load(spec(top_k=2), "float32").identity
        inputs = {"uris": list(spec().inputs.uris), "format": "auto"}
        open_run = OpenRun.begin(store, OpenRecord(identity=identity, inputs=inputs))
        write_table(store, open_run.part_name(0), PartFooter().attach(table_of([Row("a", "A")])))
        policies: list[dict[str, bool]] = [{}, {"full": True}, {"allow_mixed": True}]
        for policy in policies:
            with pytest.raises(UsageError, match=r"top_k: 2 -> 3.*policy\.discard_open_run"):
                run(spec(**policy))
        assert store.exists(f"{open_run.directory}/open.json")

        result = run(spec(discard_open_run=True))
        assert result.run_id != open_run.run_id
        assert not store.list("_open")

    def test_open_run_of_a_version_that_took_fewer_extensions_goes_on(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        identity = LoadedModel.load(spec(), "float32").identity
        uris = list(spec().inputs.uris)
        began_with = {"uris": uris, "format": "auto", "extensions": list(FIRST_EXTENSIONS),
                      "uri_column": None, "image_column": None}  # fmt: skip
        open_run = OpenRun.begin(store, OpenRecord(identity=identity, inputs=began_with))
        write_table(store, open_run.part_name(0), PartFooter().attach(table_of([Row("a", "A")])))
        fewer = replace(spec(), inputs=replace(spec().inputs, extensions=("jpg",)))
        with pytest.raises(UsageError, match="extensions"):
            run(fewer)
        assert run(spec()).run_id == open_run.run_id

    def test_open_run_without_rows_binds_nobody(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        record = OpenRecord(identity=OLD, inputs={"uris": ["elsewhere"]})
        open_run = OpenRun.begin(store, record)
        assert run(spec()).run_id != open_run.run_id
        assert not store.list("_open")

    @pytest.mark.parametrize("step", ["seal", "publish"])
    def test_a_compaction_that_was_killed_binds_nobody(
        self, spec: SpecOf, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before it had closed it is left out, afterwards its publication is finished."""
        store = self.finish_all(spec())
        (newest,) = History.load(store).runs
        closed(store, "20260102T000000Z-1", [Row("a", "A")], identity=newest.identity)
        with monkeypatch.context() as patch:
            patch.setattr(RowsSeen, "add", lambda *_: None)  # these rows have no scores
            patch.setattr(f"pipeline.runs.closing.{step}", None)
            with pytest.raises(TypeError):
                compact(CompactSpec(output=store.uri))
        plan = forecast(spec()).plan
        assert (plan.counts.unchanged, plan.counts.new) == (2, 0)
        result = run(spec(max_failure_rate=0))
        assert (result.counts.skipped, result.interrupted) == (2, None)
        assert len(History.load(store).runs) == (3 if step == "seal" else 2)
        assert not store.list("_open")

    @pytest.mark.parametrize("wrong", ["gone", ""], ids=["missing", "empty"])
    def test_wrong_input_leaves_no_open_run(self, spec: SpecOf, tmp_path: Path, wrong: str) -> None:
        """The first INPUT is fine; the right command afterwards must not find a run of this one."""
        (tmp_path / "empty").mkdir()
        uris = (*spec().inputs.uris, str(tmp_path / (wrong or "empty")))
        with pytest.raises(UsageError):
            run(replace(spec(), inputs=InputSpec(uris=uris)))
        assert not (tmp_path / "out").exists()

    def test_missing_data_file_is_named_with_the_way_out(self, spec: SpecOf) -> None:
        store = self.finish_all(spec())
        (name,) = store.list("data")
        store.remove(name)
        with pytest.raises(
            UsageError, match=r"20260101T000000Z-1.*part-00000\.parquet.*policy\.full"
        ):
            run(spec())
