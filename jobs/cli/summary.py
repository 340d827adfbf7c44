"""What a person reads when a job has closed."""

from __future__ import annotations

import sys

from pipeline.contract.errors import ExitCode
from pipeline.runs.result import RunResult


def summarize(result: RunResult) -> ExitCode:
    """Print the closing summary to stdout; returns the job's exit code."""
    counts, manifest = result.counts, result.manifest
    if not counts.computed and not manifest.deferred:
        print(f"nothing new: {counts.skipped} images unchanged")
    else:
        print(
            f"{counts.listed} images listed = {counts.ok} ok + {counts.failed} failed "
            f"+ {counts.skipped} skipped (unchanged)"
        )
        print(f"table:  {result.data_uri}")
    if result.policy.is_partial:
        print("a trial: a run without --limit and --sample takes the other files")
    print(f"report: {result.report_uri}")
    if rate := manifest.timings.images_per_second:
        print(f"speed:  {rate:.1f} images/s, start of Ray included")
    if left := manifest.deferred:
        print(f"time is up: {left.images} images, {left.shards} shards are left for the next run")
    if excluded := manifest.plan.get("excluded"):
        print(f"excluded: {excluded}")
    for code, number in manifest.failures.items():
        print(f"failed: {number} {code}")
    for alarm in result.alarms:
        print(f"changed: {alarm}")
    if complaint := result.complaint:
        print(f"error: {complaint}", file=sys.stderr)
    return result.exit_code
