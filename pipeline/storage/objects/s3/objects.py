"""What s3fs takes two or three requests for, in one.

Only what is answered well, or with 404, counts here. For everything else s3fs is asked, which
tries again and says what is wrong.
"""

from __future__ import annotations

from contextlib import closing

from pipeline.contract.errors import JobError
from pipeline.storage.objects.s3.pages import list_objects
from pipeline.storage.objects.s3.requests import S3Object, insist
from pipeline.storage.retry import classify


def read(path: str) -> bytes | None:
    """The bytes of an object; None if they are not to be had at once.

    Raises:
        FileNotFoundError: there is no such object.
    """
    try:
        with closing(S3Object(path).open()) as body:
            return body.read()
    except JobError:
        raise
    except Exception as error:  # HTTP clients raise classes of their own
        found = classify(error)
        if found.code == "not_found":
            raise FileNotFoundError(f"s3://{path}: {found}") from error
        return None


def sizes(path: str, *, or_itself: bool) -> dict[str, int] | None:
    """The paths of all objects below a path with their sizes in bytes, or of the one that has it,
    if that is asked, too; None if they are not to be had."""
    bucket, _, key = path.partition("/")
    try:
        listed = list_objects(bucket, f"{key}/" if key else "")
        found = {f"{bucket}/{key}": size for key, size, _ in listed}
        return _named(path) if or_itself and not found else found
    except FileNotFoundError:
        return {}
    except OSError:
        return None


def _named(path: str) -> dict[str, int]:
    return {path: insist(S3Object(path).size)} if "/" in path else {}
