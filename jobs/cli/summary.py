"""What a person reads, or a script, when a job has closed, or when it is planned."""

from __future__ import annotations

import json
import sys
from typing import Any

from pipeline.contract.errors import ExitCode
from pipeline.contract.manifest import describe_not_taken
from pipeline.monitoring.model.shadow import described
from pipeline.plan.forecast import Forecast
from pipeline.runs.result import RunResult


def summarize(result: RunResult, *, as_json: bool = False, quiet: bool = False) -> ExitCode:
    """Print the closing summary to stdout; returns the job's exit code."""
    if as_json:
        print(json.dumps(_as_json(result), indent=2))
    elif not quiet:
        _print(result)
    if complaint := result.complaint:
        print(f"error: {complaint}", file=sys.stderr)
    return result.exit_code


def show_plan(plan: Forecast, *, as_json: bool) -> None:
    """Print what a run would do."""
    print(json.dumps(plan.to_dict(), indent=2) if as_json else "\n".join(plan.lines()))


def _as_json(result: RunResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "exit_code": int(result.exit_code),
        "counts": result.counts.to_dict(),
        "failures": dict(result.manifest.failures),
        "deferred": result.manifest.deferred.to_dict(),
        "not_taken": dict(result.manifest.not_taken),
        "model": result.manifest.model.model,
        "model_before": result.manifest.model_before,
        "table": result.data_uri,
        "report": result.report_uri,
        "review": result.review_uri,
        "images_per_second": result.manifest.timings.images_per_second,
        "shadow": result.manifest.shadow,
        "alarms": list(result.alarms),
        "error": result.complaint,
    }


def _print(result: RunResult) -> None:
    counts, manifest = result.counts, result.manifest
    if not counts.computed and not manifest.deferred:
        print(f"nothing new: {counts.skipped} images unchanged")
    else:
        print(
            f"{counts.listed} images listed = {counts.ok} ok + {counts.failed} failed "
            f"+ {counts.skipped} skipped (unchanged)"
        )
        print(f"table:  {result.data_uri}")
    if before := manifest.model_before:
        print(f"model:  {manifest.model.model}, another one than in the last run: {before}")
    if manifest.shadow is not None:
        print(f"shadow: {described(manifest.shadow)}")
    if result.policy.is_partial:
        print("a trial: a run without --limit and --sample takes the other files")
    print(f"report: {result.report_uri}")
    if review := result.review_uri:
        print(f"review: {review}")
    if rate := manifest.timings.images_per_second:
        speed = f"{rate:.1f} images/s" if rate >= 1 else f"{1 / rate:.1f} s for an image"
        print(f"speed:  {speed}, start of Ray included")
    if left := manifest.deferred:
        print(f"time is up: {left.images} images, {left.shards} shards are left for the next run")
    if excluded := manifest.plan.get("excluded"):
        print(f"excluded: {excluded}")
    if manifest.not_taken:
        print(describe_not_taken(manifest.not_taken))
    for code, number in manifest.failures.items():
        print(f"failed: {number} {code}")
    for alarm in result.alarms:
        print(f"changed: {alarm}")
