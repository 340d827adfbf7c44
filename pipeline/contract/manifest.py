"""What a closed run records of itself: ``manifest.json``, and ``latest.json``, which points to it.

The names of the fields are the keys of the files, and people's scripts rely on them. What code
reads is typed; what only people read (the plan's counts, the versions, the spec as given) is
carried unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.contract import layout
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.records import Record, omitted, read_value

_REPORTED = "stage_"
NO_EXTENSION = "without extension"
OTHER_EXTENSIONS = "with other extensions"
"""What stands in ``Manifest.not_taken`` for files that have no extension, and for rare ones."""


@dataclass(frozen=True)
class Counts(Record):
    """The counts of images: listed = ok + failed + skipped."""

    listed: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    """Images whose rows of earlier runs remain valid."""

    @property
    def computed(self) -> int:
        """Rows of this run."""
        return self.ok + self.failed

    @property
    def failure_rate(self) -> float:
        """Share of the rows of this run that failed; 0 if there are none."""
        return self.failed / max(self.computed, 1)


@dataclass(frozen=True)
class DeferredCounts(Record):
    """What the deadline left to the next run; not part of ``Counts``."""

    images: int = 0
    shards: int = 0

    def __bool__(self) -> bool:
        return bool(self.images or self.shards)


@dataclass(frozen=True)
class DataFile(Record):
    """A file below data/."""

    name: str
    rows: int = 0


@dataclass(frozen=True)
class Timings(Record):
    """Wall seconds of the phases, and what the workers reported; one flat object in the file."""

    phases: Mapping[str, float] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)
    """Sums over the workers of the last attempt, such as the images "inferred"."""

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        known: dict[str, float] = read_value(Mapping[str, float], values, where)
        reported = {name for name in known if name.startswith(_REPORTED)}
        return cls(
            {name: value for name, value in known.items() if name not in reported},
            {name.removeprefix(_REPORTED): known[name] for name in known if name in reported},
        )

    def to_dict(self) -> dict[str, Any]:
        return {**self.phases, **{_REPORTED + name: n for name, n in self.reported.items()}}

    @property
    def execute(self) -> float:
        """From the start of Ray to the last row; 0 when nothing was computed."""
        return self.phases.get("execute", 0.0)

    @property
    def inferred(self) -> float:
        """Images that went through the model."""
        return self.reported.get("inferred", 0.0)

    @property
    def images_per_second(self) -> float:
        """Images of the last attempt over its seconds, the start of Ray included."""
        return self.inferred / self.execute if self.execute else 0.0


@dataclass(frozen=True)
class EmbeddingSummary(Record):
    """Mean and variance of each dimension of the embeddings."""

    count: int
    mean: tuple[float, ...]
    """(C,)"""
    variance: tuple[float, ...]
    """(C,): of the population."""


@dataclass(frozen=True)
class RowSummary(Record):
    """Statistics of all rows together, other than labels and failures."""

    scores: Mapping[str, int] = field(default_factory=dict)
    """The number of top-1 scores in each bin."""
    embedding: EmbeddingSummary | None = None


@dataclass(frozen=True)
class Change(Record):
    """One statistic of a run compared with earlier ones, or a term of such a statistic."""

    what: str
    label: str | None
    """A label, a bin or an error code; None for the whole."""
    before: float | None
    now: float | None
    statistic: str
    value: float
    threshold: float | None = None
    """None for a term of the change above it."""

    @property
    def alarm(self) -> bool:
        return self.threshold is not None and self.value > self.threshold

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "alarm": self.alarm}

    def __str__(self) -> str:
        name = self.what if self.label is None else f"{self.what} ({self.label})"
        return f"{name}: {self.statistic} {self.value:.3g}, threshold {self.threshold:.3g}"


@dataclass(frozen=True)
class Drift(Record):
    """How a run compares with the runs before it."""

    runs: tuple[str, ...] = ()
    """Those that it was compared with, newest first."""
    images_before: int = 0
    images_now: int = 0
    statistics: tuple[Change, ...] = ()

    @property
    def alarms(self) -> list[str]:
        """A line for each statistic that exceeds its threshold."""
        return [str(change) for change in self.statistics if change.alarm]


@dataclass(frozen=True)
class _Inputs(Record):
    uris: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Policy(Record):
    full: bool = False


@dataclass(frozen=True)
class _Spec(Record):
    """The part of a run's spec that code reads, for every kind of run."""

    inputs: _Inputs = _Inputs()
    policy: _Policy = _Policy()


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """Everything that a closed run records of itself."""

    run_id: str
    started: str = ""
    finished: str = ""
    attempts: int = 1
    counts: Counts
    deferred: DeferredCounts = DeferredCounts()
    failures: Mapping[str, int] = field(default_factory=dict)
    """Rows by error code, most frequent first."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Rows by best label, most frequent first."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    vanished: tuple[str, ...] | None = omitted()
    """The first of the images of earlier runs that are gone; None for runs that list nothing."""
    files: tuple[DataFile, ...]
    model: Provenance = field(default_factory=Provenance)
    model_before: str | None = omitted()
    """The model of the newest run before, if that was another one."""
    identity: Identity
    arithmetic: str | None = omitted()
    """What the run computed in, and why; None for runs that compute nothing."""
    shadow: Mapping[str, Any] | None = omitted()
    """What a second model said of the same images; None for runs without one."""
    actors: Mapping[str, int] | None = omitted()
    """Replicas of the model in the last attempt: the "least" and the "most" that there might be,
    and the most that ran at a time, "reached"; None for runs that compute nothing."""
    source_runs: tuple[str, ...] | None = omitted()
    """The runs whose rows were relabelled or combined; None for runs that compute."""
    compacted: tuple[Manifest, ...] | None = omitted()
    """Of a compaction: the newest of the runs that computed its rows, newest first, for later ones
    to be compared with; without their files. None for other runs."""
    spec: Mapping[str, Any]
    timings: Timings = field(default_factory=Timings)
    versions: Mapping[str, str] = field(default_factory=dict)
    summary: RowSummary = field(default_factory=RowSummary)
    drift: Drift = field(default_factory=Drift)

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        manifest = super().from_dict(values, where)
        _Spec.from_dict(manifest.spec, "spec")
        for number, file in enumerate(manifest.files):
            if not layout.is_data_file(file.name):
                raise ValueError(f"files[{number}] is {file.name!r}, which no run writes")
        return manifest

    @property
    def is_full(self) -> bool:
        """Whether the run replaces all earlier ones."""
        return _Spec.from_dict(self.spec).policy.full

    @property
    def inputs(self) -> tuple[str, ...]:
        """The INPUT arguments; empty for a relabelling."""
        return _Spec.from_dict(self.spec).inputs.uris

    @property
    def not_taken(self) -> Mapping[str, int]:
        """Files that the listing met and that are no input, by extension, most frequent first."""
        numbers: Mapping[str, int] = self.plan.get("not_taken") or {}
        return numbers

    @property
    def file_names(self) -> list[str]:
        """The files with the run's rows."""
        return [file.name for file in self.files]


def describe_not_taken(numbers: Mapping[str, int]) -> str:
    """``Manifest.not_taken`` in words: "4 files of other kinds not taken: 2 mp4, 1 psd, 1 txt"."""
    total = sum(numbers.values())
    files = "1 file of another kind" if total == 1 else f"{total} files of other kinds"
    return f"{files} not taken: {', '.join(f'{n} {name}' for name, n in numbers.items())}"


@dataclass(frozen=True)
class Latest(Record):
    """``latest.json``: the last closed run."""

    run_id: str
    manifest: str
    """Where its manifest is, below OUT."""
    counts: Counts


@dataclass(frozen=True)
class Current(Record):
    """``current.json``: the files whose rows count now."""

    run_id: str
    """The last closed run."""
    files: tuple[str, ...]
    """Below OUT; the first row of a URI, in their order, is its newest."""
