"""The settings of what counts as done, and what as failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.contract.errors import ERROR_CODES, UsageError
from pipeline.contract.spec.settings import check_settings, setting

_CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """What counts as done, and what as failed."""

    max_failure_rate: float = setting(
        0.1, "share of this run's images that may fail before the exit code is 3", metavar="R"
    )
    fail_on_drift: bool = setting(
        False, "also exit with code 3 when the run differs much from earlier ones"
    )
    retry_failed: tuple[str, ...] = setting(
        (), "error codes of earlier failures to try again", metavar="CODE,...", group="increments"
    )
    reuse_content: bool = setting(
        False, "copy the numbers of an earlier image with the same bytes", group="increments"
    )
    max_seconds: float | None = setting(
        None,
        "start no more images after this time, commit what is done, leave the rest to the next run",
        metavar="S",
        at_least=0,
        group="increments",
    )
    deadline: str | None = setting(
        None, "the same at the next HH:MM of the local clock", metavar="HH:MM", group="increments"
    )
    limit: int | None = setting(
        None,
        "for a trial: see only the first N files of the listing",
        metavar="N",
        at_least=1,
        group="increments",
    )
    sample: float | str | None = setting(
        None,
        "for a trial: see only such a share of the files, the same ones in every run; 1% or 0.01",
        metavar="SHARE",
        group="increments",
    )
    full: bool = setting(
        False, "do everything again; this run replaces all earlier ones", group="increments"
    )
    allow_mixed: bool = setting(
        False, "accept earlier runs of another model as done", group="increments"
    )
    discard_open_run: bool = setting(
        False, "throw away what an unfinished run has done", group="increments"
    )

    def __post_init__(self) -> None:
        check_settings(self, "policy")
        if unknown := set(self.retry_failed) - ERROR_CODES:
            raise UsageError(
                f"<policy.retry_failed> has unknown error codes: {', '.join(sorted(unknown))}; "
                f"accepted: {', '.join(sorted(ERROR_CODES))}"
            )
        if self.deadline is not None and not _CLOCK.fullmatch(self.deadline):
            raise UsageError(
                f"<policy.deadline> is {self.deadline!r}; it must be a time of day, HH:MM"
            )
        if not 0 < self.share <= 1:
            raise UsageError(
                f"<policy.sample> is {self.sample!r}; it must be a share of the files, such as 1% "
                "or 0.01"
            )
        if self.full and self.is_partial:
            partial = "limit" if self.limit is not None else "sample"
            raise UsageError(
                f"<policy.{partial}> excludes <policy.full>, which replaces the rows of all files; "
                "try it in another <output.uri>"
            )
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(
                f"<policy.max_failure_rate> is {self.max_failure_rate}; it must be from 0 to 1"
            )

    @property
    def share(self) -> float:
        """Of the files, which the run is about; 0 if ``sample`` is no number."""
        number, is_percent, rest = str(1 if self.sample is None else self.sample).partition("%")
        try:
            return float(number) / (100 if is_percent else 1) if not rest.strip() else 0.0
        except ValueError:
            return 0.0

    @property
    def is_partial(self) -> bool:
        """Whether the run sees a part of the files alone."""
        return self.limit is not None or self.sample is not None

    def stop_at(self, now: float) -> float | None:
        """When to start no more images, in seconds since the epoch like ``now``; None for never."""
        limits = []
        if self.max_seconds is not None:
            limits.append(now + self.max_seconds)
        if self.deadline is not None:
            hour, minute = map(int, self.deadline.split(":"))
            start = datetime.fromtimestamp(now)
            end = start.replace(hour=hour, minute=minute, second=0, microsecond=0)
            limits.append((end if end > start else end + timedelta(days=1)).timestamp())
        return min(limits, default=None)
