"""A planned run: compute what is left, then close."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from pipeline.contract.errors import LostNodesError, RunError, UsageError
from pipeline.contract.manifest import DeferredCounts, Manifest, Timings
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import TRAINING_PICTURE, vanished_rows
from pipeline.contract.spec import ComputeSpec, RunSpec
from pipeline.model.bundle import ModelBundle, ShadowBundle
from pipeline.model.loaded import LoadedModel
from pipeline.monitoring.comparison import Retrospect
from pipeline.monitoring.report import THUMBNAILS
from pipeline.monitoring.review.queue import ReviewQueue
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import HERE
from pipeline.output.merging.tasks import Tasks
from pipeline.output.open_run import Committed, OpenRun
from pipeline.plan.diff import Plan, Work
from pipeline.plan.reuse import Contents
from pipeline.plan.shards import Estimate
from pipeline.runs.closing import Account, Clock, close_run
from pipeline.runs.computing.challenger import Challenger
from pipeline.runs.computing.known_rows import ROWS_IN_THIS_PROCESS
from pipeline.runs.computing.sizes import Cut, num_tasks, rows_per_part
from pipeline.runs.computing.version import model_before
from pipeline.stages.allocation import Allocation, allocate
from pipeline.stages.cluster.growth import awaited, can_grow, nodes
from pipeline.stages.cluster.places import check_shared
from pipeline.stages.cluster.ray_session import connect, ray_as_found, ray_session
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.stages.decode.settings import DecodeSettings, bytes_of
from pipeline.stages.infer.settings import InferSettings
from pipeline.stages.watching.progress import Progress, Reporter, is_watched
from pipeline.stages.watching.reach import leaving_out
from pipeline.storage.filesystems import WorkerEnvironment

if TYPE_CHECKING:  # else where it is used: a run that has nothing to compute does without Ray Data
    from pipeline.stages.graph import Stages

ROOM_SECONDS = 30.0
"""For Ray to start actors of a lost node on others, before somebody asks whether they hold them."""
ROWS_WORTH_TASKS = 100_000
"""Fewer are merged, in three seconds at most, while Ray would still start its workers."""
log = logging.getLogger(__name__)


def identity_of(model: LoadedModel, kept: pa.Schema) -> Identity:
    """What must agree between rows of one table: where their numbers come from, their columns, and
    what is kept of the input."""
    columns = {field.name: str(field.type) for field in kept}
    return replace(model.identity, kept=columns or None)


@contextmanager
def tasks_for(
    rows: int, compute: ComputeSpec, *, output: str = "", debug: bool = False
) -> Iterator[Tasks]:
    """Where so many rows are merged: few of them here, more on the cluster, or on a Ray of ours.

    Raises:
        UsageError: the cluster cannot be reached.
        RunError: Ray did not start.
    """
    if rows < ROWS_WORTH_TASKS:
        yield HERE
        return
    with ray_as_found():
        connect(compute, debug=debug)
        with leaving_out():
            yield RayTasks(WorkerEnvironment.capture(), output)


@dataclass(frozen=True)
class Chosen:
    """What a caller of a run has decided about its images."""

    listing: Sequence[pa.Table] = ()
    """LISTING tables in the place of what lies in the inputs, if there are any."""
    pictures: int | None = None
    """Also keep a file of each image, at most so many pixels on its short side."""


@dataclass
class PlannedRun:
    """A planned run: compute what is left, then close."""

    spec: RunSpec
    model: LoadedModel
    kept: pa.Schema
    """Columns of the input that are carried along to the output."""
    history: History
    open_run: OpenRun
    plan: Plan
    pictures: int | None = None
    """The short side of the files that rows keep of their images, if they do."""
    committed: Committed = field(default_factory=Committed)
    challenger: Challenger | None = None
    """A second model, which sees the same images."""
    totals: dict[str, float] = field(default_factory=dict)
    """What the workers reported."""
    actors: Mapping[str, int] | None = None
    """How many computed; None before."""

    def execute(
        self, first: Work, later: Iterable[Work], stop_at: float | None, *, debug: bool
    ) -> None:
        """Compute the waves, the first of which is not empty; afterwards the open run owns the new
        parts."""
        with ThreadPoolExecutor(1) as beside:
            packed = beside.submit(self._pack)  # Ray takes seconds to start, and few cores
            weights = sum(model.weights_bytes for model in self._models)
            if is_watched():
                log.info("starting Ray ...")
            with ray_session(self.spec.compute, weights_bytes=weights, debug=debug) as allocation:
                from pipeline.stages.decode.warm_up import warm_up

                check_shared(self.open_run.store)
                tasks = self._num_tasks(first, allocation)
                warm_up(self.model.preprocessing, allocation, tasks)
                log.info("%s", allocation.describe())
                bundle, second = packed.result()
                shadow = ray.put(second) if second else None
                self._compute(chain([first], later), ray.put(bundle), shadow, allocation, stop_at)
        self.open_run.parts += self.committed.parts

    @property
    def _models(self) -> list[LoadedModel]:
        return [self.model, *([self.challenger.loaded] if self.challenger else [])]

    def _pack(self) -> tuple[ModelBundle, ShadowBundle | None]:
        return self.model.pack(), self.challenger.pack() if self.challenger else None

    def _compute(
        self,
        waves: Iterable[Work],
        bundle: ray.ObjectRef[ModelBundle],
        shadow: ray.ObjectRef[ShadowBundle] | None,
        allocation: Allocation,
        stop_at: float | None,
    ) -> None:
        from pipeline.stages.graph import Stages
        from pipeline.stages.watching.pool import Pool

        with Progress(done=self.plan.counts.finished) as progress:
            reporter = progress.reporter
            decode = self._decode_settings(stop_at, reporter)
            infer = InferSettings.of_run(
                self.model, self.spec.compute, allocation, reporter=reporter, review=self._review
            )
            pool = Pool(patience=self._patience, check=self._check_room)
            stages = Stages(decode, bundle, infer, allocation, shadow, pool)
            progress.expect = self._expected
            if self.spec.compute.is_elastic:
                progress.pool = lambda: pool.told(allocation.num_actors, awaited())
            for number, work in enumerate(waves):
                if not work.is_empty:
                    self.committed += self._stream(number, work, stages)
            self.totals = progress.totals()
        self.actors = {
            "least": allocation.least_actors,
            "most": allocation.num_actors,
            "reached": pool.reached,
        }

    @property
    def _patience(self) -> float:
        """With actors that were on a lost node: another may be on its way."""
        return max(ROOM_SECONDS, self.spec.compute.wait_for_nodes if can_grow() else 0)

    def _check_room(self, wanted: int) -> None:
        """Make sure that the nodes that are left hold so many actors.

        Raises:
            LostNodesError: they hold fewer, with which another attempt can go on.
            RunError: they do not hold those that were asked for.
        """
        try:
            room = allocate(self.spec.compute, nodes()).num_actors
        except UsageError as error:
            raise RunError(
                f"nodes were lost, and what is left is not enough: {error.args[0]}"
            ) from error
        if room < wanted:
            raise LostNodesError(
                f"nodes were lost: those that are left hold {room} of {wanted} actors"
            )

    def _expected(self, totals: Mapping[str, float]) -> Estimate | None:
        """How many images there are to do, None while the listing goes on."""
        return self.plan.images_to_do(totals) if self.plan.is_complete else None

    def _num_tasks(self, first: Work, allocation: Allocation) -> int:
        image_bytes = bytes_of(self.model.preprocessing)
        return num_tasks(first, self.spec.compute, image_bytes, allocation)

    def _decode_settings(self, stop_at: float | None, reporter: Reporter) -> DecodeSettings:
        return DecodeSettings.of(
            self.spec,
            self.model.preprocessing,
            self.kept,
            stop_at=stop_at,
            known_contents=ray.put(self.contents.index()) if self._reuses_content else None,
            reporter=reporter,
            pictures=self.pictures,
        )

    def _stream(self, number: int, work: Work, stages: Stages) -> Committed:
        from pipeline.stages.graph import execute
        from pipeline.stages.rows.write import PartSink

        cut = Cut.of(work, self.spec.compute, stages)
        rows, environment = rows_per_part(work), stages.decode.environment
        sink = PartSink(self.open_run, number, rows, environment, self._review)
        decode = replace(stages.decode, thumbnail_rate=THUMBNAILS / work.weight)
        return execute(cut.blocks, cut.fit(replace(stages, decode=decode)), sink)

    @property
    def contents(self) -> Contents:
        return Contents(self.history, self.identity)

    @property
    def identity(self) -> Identity:
        """What its rows have in common with those of the runs that they may join."""
        return identity_of(self.model, self.kept)

    @property
    def _schema(self) -> pa.Schema:
        """Of the published files."""
        pictures = [] if self.pictures is None else [TRAINING_PICTURE]
        return pa.schema([*self.model.schema, *pictures, *self.kept])

    @property
    def _reuses_content(self) -> bool:
        return self.spec.policy.reuse_content and not self.open_run.record.full

    @property
    def _review(self) -> ReviewQueue | None:
        """What the run would show to a person, before it has seen an image; None for nothing."""
        size = self.spec.output.review
        retrospect = Retrospect.of(self.history.nights, self.identity, size)
        return retrospect.rows.queue if size else None

    @property
    def rows(self) -> int:
        """Committed so far."""
        return self.open_run.rows

    def close(self, clock: Clock, tasks: Tasks) -> Manifest:
        """Check that all rows are there, and publish; the rows are merged in ``tasks``.

        Raises:
            RunError: rows are missing or repeated; the run stays open.
        """
        account = self._account(clock, tasks)
        return close_run(self.open_run, self.history.nights, account, tasks, self._known)

    @property
    def _known(self) -> History | None:
        """The runs as they have been read; a spread ledger may have kept more of them since."""
        return self.history if self.history.rows <= ROWS_IN_THIS_PROCESS else None

    def _account(self, clock: Clock, tasks: Tasks) -> Account:
        spec, model, deferred = self.spec, self.model, self.committed.deferred
        policy = replace(spec.policy, full=self.open_run.record.full)
        # A full run replaces all rows, wherever they came from.
        inputs = None if policy.full else spec.inputs.uris
        gone = self.plan.vanished(is_done=True)
        vanished = self.history.vanished(gone, inputs, tasks.map)
        reported = {name: round(value, 3) for name, value in self.totals.items()}
        return Account(
            expected=self.plan.expected_rows(self.open_run.closed_shards(), deferred),
            skipped=self.plan.counts.unchanged,
            deferred=DeferredCounts(deferred.images, len(deferred.shards)),
            plan=self.plan.counts.to_dict() | {"vanished": len(vanished)},
            vanished=vanished_rows(vanished, self._schema),
            model=model.provenance,
            model_before=model_before(self.identity, self.history),
            identity=self.identity,
            classes=model.classes,
            arithmetic=str(model.arithmetic),
            actors=self.actors,
            spec=replace(spec, policy=policy).to_dict(),
            timings=Timings(clock.seconds, reported),
            review=spec.output.review,
            shadow=self.challenger.model if self.challenger else None,
            rows_per_file=spec.output.rows_per_file,
            complete=self.contents.fill,
        )
