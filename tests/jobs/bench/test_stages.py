"""The stages that the benchmark times are those of a run: the same options, pool and cut."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import DataContext

from jobs.bench.ceilings.end_to_end import ceilings_of
from jobs.bench.ceilings.stages import (
    Laps,
    NullModel,
    Stage,
    room_of,
    run_stage,
    stages_of,
)
from jobs.bench.measure.inputs import work_of
from pipeline.contract.schema import NO_COLUMNS
from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.loaded import LoadedModel
from pipeline.output.open_run import OpenRecord
from pipeline.runs.computing import execution
from pipeline.stages.allocation import Allocation, allocate
from pipeline.stages.decode import warm_up
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.graph import ACTOR_LIMITS, TASK_LIMITS
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from pipeline.stages.nodes import Node
from pipeline.stages.watching.progress import Reporter
from tests.support.inputs.images import write_images
from tests.support.models.checkpoints import write_checkpoint

IMAGES, CPUS = 40, 16


class Recorder:
    """A dataset that notes what is asked of it, and yields one receipt."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.context: dict[str, Any] = {}

    def from_blocks(self, blocks: list[pa.Table]) -> "Recorder":
        self.blocks, self.calls = [len(block) for block in blocks], []
        self.context = vars(DataContext.get_current()).copy()
        return self

    def num_blocks(self) -> int:
        return len(self.blocks)

    def map_batches(self, function: Any, **options: Any) -> "Recorder":
        self.calls.append((function, options))
        return self

    def write_datasink(self, sink: Any, **options: Any) -> None:
        """A run ends here; without a limit, its writers would take the decode tasks' places."""
        assert options["concurrency"]

    def iter_batches(self, **options: Any) -> Iterator[pa.Table]:
        """A benchmark ends here."""
        row = {"when": 1.0, "images": 4, "ok": 4, "cpu_seconds": 0.0, "nodes": ["a"] * 4}
        yield pa.Table.from_pylist([row])

    @property
    def options(self) -> list[dict[str, Any]]:
        """What Ray is told of both stages, as values that can be compared."""
        found = [dict(options) for _, options in self.calls]
        for options in found:
            options.pop("fn_constructor_args", None)
            if options["compute"] is not None:
                options["compute"] = vars(options["compute"])
        return found

    @property
    def settings(self) -> tuple[DecodeSettings, InferSettings]:
        """What the decode tasks and the actors are told, but for what the report needs."""
        (decode, _), (_, infer) = self.calls
        actors = infer["fn_constructor_args"][1]
        tasks = replace(decode.keywords["settings"], thumbnail_rate=0, reporter=Reporter())
        return tasks, replace(actors, reporter=Reporter(), review=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_images(folder / "in", IMAGES)
    write_checkpoint(folder / "model")
    return folder


@pytest.fixture(scope="module")
def spec(folder: Path) -> RunSpec:
    return RunSpec(
        inputs=InputSpec(uris=(str(folder / "in"),)),
        model=ModelSpec(source=str(folder / "model")),
        output=OutputSpec(uri=str(folder / "out"), top_k=2),
        compute=ComputeSpec(block_size=16),
    )


@pytest.fixture(params=["GPUs", "CPUs"])
def allocation(request: pytest.FixtureRequest) -> Allocation:
    gpus = 2 if request.param == "GPUs" else 0
    return allocate(ComputeSpec(num_actors=3 if gpus else None), [Node(cpus=CPUS, gpus=gpus)])


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Stands in for Ray: notes what a run and the benchmark ask of it."""
    recorder = Recorder()
    monkeypatch.setattr(ray.data, "from_blocks", lambda blocks: recorder.from_blocks(blocks))
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": CPUS})
    before = DataContext.get_current()
    monkeypatch.setattr(DataContext, "get_current", lambda: SimpleNamespace(**vars(before)))
    return recorder


@pytest.fixture
def execute_run(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> Callable[[Allocation], None]:
    """Executes a run over all images with an allocation, up to its sink."""

    def execute_run(allocation: Allocation) -> None:
        session = nullcontext(allocation)
        progress = nullcontext(SimpleNamespace(reporter=Reporter(), totals=dict))
        monkeypatch.setattr(execution, "ray_session", lambda compute, **options: session)
        monkeypatch.setattr(warm_up, "warm_up", lambda *_: None)
        monkeypatch.setattr(execution, "can_grow", lambda: False)
        monkeypatch.setattr(execution, "check_shared", lambda store: None)
        monkeypatch.setattr(execution, "Progress", lambda done: progress)
        history: Any = SimpleNamespace(nights=())
        open_run: Any = SimpleNamespace(store=None, parts=(), record=OpenRecord())
        counts = SimpleNamespace(finished=0, shards=0)
        plan: Any = SimpleNamespace(counts=counts, is_complete=True, num_images=IMAGES)
        model = LoadedModel.load(spec, "float32")
        planned = execution.PlannedRun(spec, model, NO_COLUMNS, history, open_run, plan)
        planned.execute(work_of(spec.inputs, None), [], None, debug=False)

    return execute_run


def test_the_model_is_timed_in_the_stages_of_a_run(
    spec: RunSpec,
    allocation: Allocation,
    recorder: Recorder,
    execute_run: Callable[[Allocation], None],
) -> None:
    execute_run(allocation)
    theirs = recorder.options, recorder.settings, recorder.blocks, recorder.context
    assert sum(recorder.blocks) == IMAGES
    run_stage("model", stages_of(spec, allocation), work_of(spec.inputs, None), spec.compute)
    ours = recorder.options, recorder.settings, recorder.blocks, recorder.context
    assert ours == theirs
    actor, options = recorder.calls[-1]
    assert issubclass(actor, Predictor)
    assert options["num_gpus"] == (allocation.actor_gpus or None)
    assert options.items() >= ACTOR_LIMITS.items()


@pytest.mark.parametrize("name", ["decode", "null"])
def test_decode_beside_gpus_is_timed_in_the_stages_of_a_run(
    name: Any, spec: RunSpec, recorder: Recorder, execute_run: Callable[[Allocation], None]
) -> None:
    """What would be the model's keeps its GPUs and CPUs, and computes nothing."""
    allocation = allocate(ComputeSpec(), [Node(cpus=CPUS, gpus=2)])
    execute_run(allocation)
    theirs = recorder.options, recorder.settings[0], recorder.blocks
    run_stage(name, stages_of(spec, allocation), work_of(spec.inputs, None), spec.compute)
    actor, options = recorder.calls[-1]
    assert (actor, options.pop("fn_constructor_args")) == (NullModel, ())
    decode = recorder.calls[0][0].keywords["settings"]
    assert (recorder.options, decode, recorder.blocks) == theirs


def test_decode_on_shared_cores_is_timed_on_all_of_them(spec: RunSpec, recorder: Recorder) -> None:
    allocation = allocate(ComputeSpec(), [Node(cpus=CPUS)])
    run_stage("decode", stages_of(spec, allocation), work_of(spec.inputs, None), spec.compute)
    decode, infer = recorder.options
    assert (decode["num_cpus"], infer["num_cpus"]) == (1, 0)
    assert room_of("decode", allocation, CPUS).decode_tasks == CPUS
    assert decode.items() >= TASK_LIMITS.items()
    assert infer.items() >= ACTOR_LIMITS.items()


def test_ceilings_beside_gpus_are_as_measured() -> None:
    stage = Stage(
        name="decode",
        images=1,
        seconds=1,
        images_per_second=700.0,
        cpu_seconds_per_image=0,
        nodes={},
    )
    model = replace(stage, name="model", images_per_second=900.0)
    room = allocate(ComputeSpec(), [Node(cpus=CPUS, gpus=2)])
    found = ceilings_of(stage, model, room, CPUS)
    assert (found.decode, found.model, found.expected, found.gpus) == (700, 900, 700, 2)
    assert found.decode_cores == room.decode_tasks == 14


def test_images_are_said_again_until_there_are_enough(spec: RunSpec) -> None:
    work = work_of(spec.inputs, 30, at_least=100)
    assert (work.num_images, work.num_shards) == (120, 0)
    uris = [uri for block in work.blocks(50) for uri in block["uri"].to_pylist()]
    assert uris[:30] == uris[30:60]
    assert len(set(uris)) == 30


def test_cpu_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr("jobs.bench.ceilings.stages.time.process_time", lambda: next(times))
    laps = Laps()
    assert [laps.lap(), laps.lap()] == [0.5, 1.5]
