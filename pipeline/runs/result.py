"""A closed run, as its caller needs it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contract import layout
from pipeline.contract.errors import ExitCode
from pipeline.contract.manifest import Counts, Manifest
from pipeline.contract.spec import PolicySpec
from pipeline.storage.store import Store


@dataclass(frozen=True)
class RunResult:
    """A closed run, as its caller needs it."""

    store: Store
    manifest: Manifest
    policy: PolicySpec
    interrupted: RunResult | None = None
    """The run before, if its publication was interrupted and this start had to finish it."""

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def counts(self) -> Counts:
        """Images by what became of them: listed, ok, failed, skipped."""
        return self.manifest.counts

    @property
    def failure_rate(self) -> float:
        """Share of the images computed in this run that failed."""
        return self.counts.failure_rate

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.TOO_MANY_FAILURES if self.complaint else ExitCode.OK

    @property
    def complaint(self) -> str | None:
        """Why a run that closed still counts as a failure, in one line."""
        if self.failure_rate > self.policy.max_failure_rate:
            return (
                f"{self.failure_rate:.1%} of the images failed, more than the "
                f"{self.policy.max_failure_rate:.1%} allowed; the failed rows of the "
                "table name the reasons"
            )
        if self.policy.fail_on_drift and self.alarms:
            return f"the run differs from earlier ones ({'; '.join(self.alarms)}); see its report"
        if self.interrupted is not None and (complaint := self.interrupted.complaint):
            return f"about the run {self.interrupted.run_id}, published only now: {complaint}"
        return None

    @property
    def alarms(self) -> list[str]:
        """A line for each statistic that differs from earlier runs by more than its threshold."""
        return self.manifest.drift.alarms

    @property
    def data_uri(self) -> str:
        return self.store.locate(layout.data_dir(self.run_id))

    @property
    def report_uri(self) -> str:
        return self.store.locate(layout.report_file(self.run_id))

    @property
    def review_uri(self) -> str | None:
        """The page on which a person corrects the run; None if it has no review queue."""
        name = layout.review_page_file(self.run_id)
        return self.store.locate(name) if self.store.exists(name) else None
