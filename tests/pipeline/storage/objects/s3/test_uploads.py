"""Uploads in parts: on a real server, and against answers that this one does not give."""

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline.storage.retry
from pipeline.storage.objects.s3 import uploads
from pipeline.storage.objects.s3.uploads import (
    PART_BYTES,
    Sending,
    Upload,
    abort,
    complete,
    unfinished,
)
from tests.support.servers.seaweedfs import Bucket

ODD_KEY = "out put/ü+%20&<x>/data/run=1/part-0.parquet"


class TestOnAServer:
    def test_the_bytes_arrive_and_nobody_sees_them_before(self, s3_bucket: Bucket) -> None:
        data = random.Random(0).randbytes(PART_BYTES + 1000)
        path = f"{s3_bucket.name}/{ODD_KEY}"
        with Sending(path) as file:
            for start in range(0, len(data), 999_999):
                file.write(memoryview(data)[start : start + 999_999])
            assert file.tell() == len(data)
            upload = file.finish()
        assert upload.size == len(data)
        assert len(upload.etags) == 2
        assert not s3_bucket.keys()
        for _ in range(2):
            complete(path, Upload.from_dict(upload.to_dict()))
            assert s3_bucket.get(ODD_KEY) == data

    def test_what_is_there_is_complete(self, s3_bucket: Bucket) -> None:
        path = f"{s3_bucket.name}/a/b"
        upload = Sending(path).finish()
        complete(path, upload)
        complete(path, Upload("forgotten", upload.etags, 0))
        with pytest.raises(FileNotFoundError, match="NoSuchUpload"):
            complete(path, Upload("forgotten", upload.etags, 1))
        with pytest.raises(FileNotFoundError, match="NoSuchUpload"):
            complete(f"{s3_bucket.name}/a/c", Upload("forgotten", upload.etags, 0))

    def test_unfinished_ones_are_found_and_aborted(self, s3_bucket: Bucket) -> None:
        paths = [f"{s3_bucket.name}/{key}" for key in (ODD_KEY, ODD_KEY, "out put/ü+", "x")]
        begun = [(path, Sending(path).id) for path in paths]
        assert sorted(unfinished(s3_bucket.name)) == sorted(begun)
        below = list(unfinished(f"{s3_bucket.name}/out put/ü+%20&<x>/data"))
        assert sorted(below) == sorted(begun[:2])
        for path, upload_id in begun + begun:
            abort(path, upload_id)
        assert not list(unfinished(s3_bucket.name))


class TestAnswers:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """What S3 answers, with status 200, in this order."""
        waiting: list[bytes] = []

        def answer(*_: Any, **__: Any) -> Any:
            return SimpleNamespace(status_code=200, content=waiting.pop(0), headers={})

        monkeypatch.setattr(uploads, "answer", answer)
        return waiting

    def test_an_error_after_the_status_is_none_the_less(self, answers: list[bytes]) -> None:
        """AWS begins to answer, and may fail before it ends."""
        answers += [
            b"<Error><Code>InternalError</Code></Error>",
            b'<CompleteMultipartUploadResult xmlns="http://s3.amazonaws.com',
            b"<CompleteMultipartUploadResult/>",
        ]
        complete("bucket/key", Upload("id", ('"etag"',), 1))
        assert not answers

    def test_pages_follow_each_other(self, answers: list[bytes]) -> None:
        def page(ids: str, *, more: bool) -> bytes:
            found = "".join(f"<Upload><Key>k</Key><UploadId>{i}</UploadId></Upload>" for i in ids)
            markers = f"<NextKeyMarker>{ids[-1]}</NextKeyMarker>" * more
            space = "http://s3.amazonaws.com/doc/2006-03-01/"
            return (
                f'<ListMultipartUploadsResult xmlns="{space}">{found}{markers}'
                f"<IsTruncated>{str(more).lower()}</IsTruncated></ListMultipartUploadsResult>"
            ).encode()

        answers += [page("ab", more=True), page("c", more=True), page("d", more=False)]
        found: Iterator[tuple[str, str]] = unfinished("bucket")
        assert [upload_id for _, upload_id in found] == list("abcd")
        answers += [page("a", more=True)] * 3
        assert [upload_id for _, upload_id in unfinished("bucket")] == ["a", "a"]
