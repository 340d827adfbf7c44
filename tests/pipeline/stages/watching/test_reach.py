"""Hosts that do not reach the storage: what was to be read there is not to blame."""

import pickle
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
import ray
from botocore.exceptions import ClientError, CredentialRetrievalError, ReadTimeoutError
from ray.exceptions import RayTaskError
from ray.util import get_node_ip_address
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

from cvt import CvtImageProcessor
from pipeline.contract.errors import (
    CutOffError,
    FetchError,
    LostNodesError,
    RunError,
    UsageError,
)
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.runs.endings import continued, run_errors
from pipeline.stages.cluster.growth import nodes
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.watching import reach as module
from pipeline.stages.watching.reach import (
    check_failure,
    check_reach,
    elsewhere,
    leaving_out,
    reaching,
    take_back,
)
from pipeline.storage.filesystems import WorkerEnvironment, answers
from pipeline.storage.objects.s3 import requests
from pipeline.storage.retry import PassingError
from tests.support.inputs.fetching import work
from tests.support.servers.clouds import Cloud
from tests.support.servers.seaweedfs import Bucket

SILENCE = PassingError("timeout", "connect timed out", is_busy=True)
HEAD: dict[str, Any] = {"NodeManagerAddress": "head", "Alive": True, "Resources": {"CPU": 1}}


@pytest.fixture(autouse=True)
def all_are_tried_again() -> Iterator[None]:
    yield
    take_back()


def settings(*stores: str) -> DecodeSettings:
    return DecodeSettings(
        preprocessing=CvtPreprocessing(CvtImageProcessor(size=32)),
        environment=WorkerEnvironment({}),
        max_pixels=10**6,
        max_bytes=10**6,
        stores=stores,
    )


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3 is at a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        yield


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Its nodes: h, on which this process is, a and b."""
    present = [HEAD | {"NodeID": name} for name in "hab"]
    monkeypatch.setattr(ray, "nodes", lambda: present)
    monkeypatch.setattr(module, "_this_node", lambda: "h")
    return present


@pytest.mark.usefixtures("nowhere")
def test_a_host_that_reaches_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not answers("s3://bucket/in")
    monkeypatch.setattr("pipeline.storage.retry.AWAY_SECONDS", 0)
    image = work({"uri": "s3://bucket/in/a.jpg"})
    with pytest.raises(CutOffError) as cut:
        list(decode_block(image, settings("s3://bucket/in")))
    assert str(cut.value) == f"the host {get_node_ip_address()} does not reach s3://bucket/in"
    (table,) = decode_block(image, settings())  # of a list, in a store for which no INPUT stands
    assert table["error_code"].to_pylist() == ["storage_error"]


def test_a_store_that_refuses_has_answered(s3_bucket: Bucket) -> None:
    assert answers(f"{s3_bucket.uri}/in")
    assert answers("s3://another-bucket/in")
    assert answers("/data")


@pytest.mark.parametrize(
    ("error", "is_answered"),
    [
        (CredentialRetrievalError(provider="a", error_msg="b"), True),
        (ClientError({}, "AssumeRole"), True),
        (ReadTimeoutError(endpoint_url="http://a"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_silence_is_no_answer(
    error: Exception, is_answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(side_effect=error)
    monkeypatch.setattr(requests, "answer", asked)
    assert answers("s3://bucket/in") is is_answered
    assert asked.call_args.kwargs == {"patient": True}  # as for a listing, which it is


def test_clouds_answer_or_not(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = cloud.create().uri
    assert answers(uri)
    silent = Mock(side_effect=NewConnectionError(Mock(), "refused"))
    monkeypatch.setattr(HTTPConnectionPool, "urlopen", silent)
    assert not answers(uri)


@pytest.mark.parametrize(
    "error",
    [
        FetchError("not_found", "gone"),
        PassingError("access_denied", "no"),
        FetchError("timeout", "x"),
    ],
)
def test_most_failures_need_no_question(error: FetchError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "answers", lambda uri: pytest.fail("asked"))
    check_failure("s3://bucket/a.jpg", error, ["s3://bucket"])


def test_stores_of_other_kinds_need_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answers(uri: str) -> bool:
        asked.append(uri)
        return True

    monkeypatch.setattr(module, "answers", answers)
    check_failure("s3://bucket/a.jpg", SILENCE, ["az://photos", "/data", "s3://bucket/in"])
    assert asked == ["s3://bucket/in"]


def test_one_question_that_is_lost_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [False, False, True]
    monkeypatch.setattr(module, "answers", lambda uri: said.pop(0))
    check_reach(["s3://bucket/in"], SILENCE)
    assert not said


def test_every_store_is_asked_once() -> None:
    some = ("s3://a/2026", "S3A://a/2025", "/data/in", "gs://a/in", "s3://b/in", "/data/more")
    spec = RunSpec(
        inputs=InputSpec(uris=some),
        model=ModelSpec(source="model"),
        output=OutputSpec(uri="s3://b/out", top_k=1),
    )
    stores = DecodeSettings.of(spec, settings().preprocessing, pa.schema([])).stores
    assert stores == ("s3://a/2026", "/data/in", "gs://a/in", "s3://b/in")


@pytest.mark.usefixtures("nowhere")
def test_what_cannot_be_written_there() -> None:
    with (
        pytest.raises(CutOffError, match="does not reach s3://bucket/out"),
        reaching("s3://bucket/out"),
    ):
        raise OSError("connect timed out")
    with pytest.raises(OSError, match="full"), reaching("/data/out"):
        raise OSError("the disk is full")


def test_a_run_goes_on_without_it(
    cluster: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Until the last host beside the driver's, which may not be left out, does not reach it."""
    ends = [CutOffError("the host a does not", "a"), CutOffError("the host h does not", "h")]
    seen = []

    def attempt() -> None:
        seen.append((len(nodes()), elsewhere()))
        with run_errors(), leaving_out():
            raise RayTaskError("decode", "a traceback", pickle.loads(pickle.dumps(ends.pop(0))))

    with pytest.raises(RunError, match="the host h does not; start the same command again"):
        continued(attempt)
    selector = {"label_selector": {"ray.io/node-id": "!in(a)"}}
    assert seen == [(3, {}), (2, selector)]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the host a does not, but others do; continuing there"]


@pytest.mark.usefixtures("cluster")
def test_what_is_left_may_not_be_enough() -> None:
    """For what the command asks: that ends a run that has begun, and is no wrong usage by now. The
    next one tries all nodes again."""
    ends: list[Exception] = [CutOffError("a", "a"), UsageError("<compute.num_actors> 3 is more")]

    def attempt() -> None:
        with run_errors(), leaving_out():
            raise ends.pop(0)

    with pytest.raises(RunError, match=r"cannot go on without them: compute\.num_actors 3 is"):
        continued(attempt)
    assert elsewhere() == {}
    ends.append(UsageError("wrong"))
    with pytest.raises(UsageError, match="wrong"):
        continued(attempt)


@pytest.mark.usefixtures("cluster", "nowhere")
def test_no_host_is_to_blame_for_a_store_that_is_away() -> None:
    silent = CutOffError("the host a does not", "a", "s3://bucket/in")
    answer = "the run stopped: s3://bucket/in does not answer; start"
    with pytest.raises(RunError, match=answer), leaving_out():
        raise RayTaskError("decode", "a traceback", pickle.loads(pickle.dumps(silent)))
    assert elsewhere() == {}


def test_one_host_with_cpus_has_to_stay(cluster: list[dict[str, Any]]) -> None:
    cluster[0]["Resources"] = {}
    with pytest.raises(LostNodesError), leaving_out():
        raise CutOffError("a", "a")
    with pytest.raises(RunError, match="the run stopped: b; start"), leaving_out():
        raise CutOffError("b", "b")
    take_back()
    with pytest.raises(LostNodesError), leaving_out():
        raise CutOffError("b", "b")
