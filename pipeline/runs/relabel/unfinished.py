"""What an interrupted job that rewrites rows has left: redoing it takes little time."""

from __future__ import annotations

from pipeline.contract.errors import UsageError
from pipeline.output.open_run import OpenRun
from pipeline.output.publish import is_closed, publish
from pipeline.storage.store import Store


def clear(output: Store, format: str) -> None:
    """Publish or discard what a job of this kind left unfinished.

    Args:
        format: of the input in the record of its open run, which tells its kind.

    Raises:
        UsageError: there is an unfinished run of another kind, which computes.
    """
    found = OpenRun.find(output)
    if found is None:
        return
    if is_closed(found):
        publish(found)
    elif found.record.is_copy or found.record.inputs.get("format") == format:
        found.discard()
    else:
        raise UsageError(
            f"{output.uri} has an unfinished run of another job, {found.run_id}; finish it first"
        )
