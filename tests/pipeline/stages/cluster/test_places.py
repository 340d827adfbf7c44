"""Who is asked for its hardware: this machine, or the nodes that will hold actors."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.spec import ComputeSpec, InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.model.arithmetic import Place, this_cpu, this_gpu
from pipeline.output.lease import Lease
from pipeline.stages.cluster import places as module
from pipeline.stages.cluster.places import check_decoder, check_shared, places
from pipeline.stages.infer.nvjpeg import why_not
from pipeline.storage.store import Store

CPU = Place("CPU", frozenset({"float32"}))
GPU = Place("a card", frozenset({"float32", "bfloat16"}), on_gpu=True)
HEAD: dict[str, Any] = {"NodeID": "h", "NodeManagerAddress": "head", "Alive": True, "Resources": {}}


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return HEAD | {"NodeID": name, "NodeManagerAddress": name, "Alive": alive} | {
        "Resources": resources
    }  # fmt: skip


class TestHere:
    """Without a Ray to join."""

    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "on_cluster", lambda: False)
        monkeypatch.setattr(module, "join", lambda compute, debug: pytest.fail("joined Ray"))
        monkeypatch.setattr(module, "this_cpu", lambda: CPU)

    def test_on_the_gpu_if_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "this_gpu", lambda: GPU)
        assert places(ComputeSpec()) == places(ComputeSpec(num_gpus=1)) == [GPU]
        assert places(ComputeSpec(num_gpus=0)) == [CPU]

    def test_on_the_cpu_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "this_gpu", lambda: None)
        assert places(ComputeSpec()) == places(ComputeSpec(num_gpus=1)) == [CPU]


class TestNodes:
    """Which of them are asked, and for what."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
        """The nodes that are asked in a cluster of these, each with the name of the question."""

        def ask(compute: ComputeSpec, *nodes: dict[str, Any]) -> list[tuple[str, str]]:
            monkeypatch.setattr(ray, "nodes", lambda: [HEAD, *nodes])
            found: list[tuple[str, str]] = []

            def note(some: list[dict[str, Any]], probe: Callable[[], Place]) -> list[Place]:
                found.extend((one["NodeID"], probe.__name__) for one in some)
                return []

            monkeypatch.setattr(module, "_ask", note)
            places(compute)
            return found

        monkeypatch.setattr(module, "on_cluster", lambda: True)
        monkeypatch.setattr(module, "join", lambda compute, debug: None)
        return ask

    def test_those_with_gpus(self, asked: Callable[..., Any]) -> None:
        some = node("a", CPU=4, GPU=1), node("b", CPU=4), node("c", CPU=4, GPU=8)
        gone = node("d", alive=False, CPU=4, GPU=1)
        expected = [("a", "this_gpu"), ("c", "this_gpu")]
        assert asked(ComputeSpec(), *some, gone) == expected
        assert asked(ComputeSpec(num_gpus=2), *some, gone) == expected

    def test_those_with_cpus(self, asked: Callable[..., Any]) -> None:
        some = node("a", CPU=4, GPU=1), node("b", CPU=4)
        assert asked(ComputeSpec(num_gpus=0), *some) == [("a", "this_cpu"), ("b", "this_cpu")]
        assert asked(ComputeSpec(), node("b", CPU=4)) == [("b", "this_cpu")]

    def test_nobody(self, asked: Callable[..., Any]) -> None:
        with pytest.raises(UsageError, match="the cluster has no CPUs to compute on"):
            asked(ComputeSpec())


class TestDecoder:
    """Of JPEG files, on the machines that can hold an actor."""

    @staticmethod
    def spec(decode: Any = "gpu", **compute: Any) -> RunSpec:
        return RunSpec(
            inputs=InputSpec(uris=("in",)),
            model=ModelSpec(source="model", decode=decode),
            output=OutputSpec(uri="out", top_k=1),
            compute=ComputeSpec(**compute),
        )

    def test_nobody_is_asked_unless_it_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "why_not", lambda: pytest.fail("asked"))
        check_decoder(self.spec("fast"))

    @pytest.mark.parametrize("compute", [{}, {"num_gpus": 0}])
    def test_no_gpus(self, monkeypatch: pytest.MonkeyPatch, compute: dict[str, Any]) -> None:
        monkeypatch.setattr(module, "on_cluster", lambda: False)
        monkeypatch.setattr("torch.cuda.is_available", lambda: bool(compute))
        with pytest.raises(UsageError, match=r"gpu needs GPUs, and this run has none"):
            check_decoder(self.spec(**compute))

    def test_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "on_cluster", lambda: False)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr(module, "why_not", lambda: None)
        check_decoder(self.spec())
        monkeypatch.setattr(module, "why_not", lambda: "torchvision is not installed")
        with pytest.raises(UsageError, match="on this machine: torchvision is not installed"):
            check_decoder(self.spec())

    def test_every_node_with_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes = [HEAD, node("a", GPU=1), node("b", CPU=4), node("c", GPU=8)]
        answers = {"a": None, "c": "PyTorch sees no GPU"}
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        monkeypatch.setattr(module, "on_cluster", lambda: True)
        monkeypatch.setattr(module, "join", lambda compute, debug: None)
        monkeypatch.setattr(
            module, "_answers", lambda some, *_: [answers[one["NodeID"]] for one in some]
        )
        with pytest.raises(UsageError, match="not possible on c: PyTorch sees no GPU"):
            check_decoder(self.spec())
        answers["c"] = None
        check_decoder(self.spec())


@pytest.mark.usefixtures("ray_local")
class TestAnswers:
    """Of a real node."""

    @property
    def host(self) -> str:
        host: str = ray.nodes()[0]["NodeManagerAddress"]
        return host

    def test_a_node_says_what_it_has(self) -> None:
        (found,) = places(ComputeSpec())
        assert (found.dtypes, found.host) == (this_cpu().dtypes, self.host)
        assert found.name == f"the CPU of {self.host}"

    def test_a_node_says_why_it_decodes_no_files(self) -> None:
        assert module._answers(ray.nodes(), why_not, "decode") == [why_not()]

    @pytest.mark.skipif(this_gpu() is not None, reason="there is a GPU")
    def test_a_gpu_that_pytorch_does_not_see(self) -> None:
        nodes = [node | {"Resources": {"GPU": 1.0}} for node in ray.nodes()]
        with pytest.raises(UsageError, match=rf"sees a GPU on {self.host}, but PyTorch none"):
            module._ask(nodes, this_gpu)

    def test_a_node_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0)
        monkeypatch.setattr(module, "_sent", lambda probe, node: ray.remote(_sleep).remote())
        with pytest.raises(
            RunError, match=rf"{self.host} did not report its hardware within 0 s.* model\.dtype"
        ):
            places(ComputeSpec())
        with pytest.raises(RunError, match=r"did not see /out within 0 s; start [a-z ]+again$"):
            module._answers(ray.nodes(), why_not, "see /out")

    def test_a_node_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_sent", lambda probe, node: ray.remote(_fail).remote())
        with pytest.raises(
            RunError, match="report its hardware: libcuda is broken; start"
        ) as caught:
            places(ComputeSpec())
        assert "\n" not in str(caught.value)


def _sleep() -> None:
    import time

    time.sleep(1)


def _fail() -> None:
    raise OSError("libcuda is broken")


class TestShared:
    """Whether all nodes see an output that is on a disk."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The nodes that were asked; ``b`` answers as if the disk were another one."""
        found: list[str] = []

        def answers(
            nodes: list[dict[str, Any]], probe: Callable[[], object], what: str
        ) -> list[object]:
            found.extend(node["NodeID"] for node in nodes)
            return [None if node["NodeID"] == "b" else probe() for node in nodes]

        here = SimpleNamespace(get_node_id=lambda: HEAD["NodeID"])
        monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
        monkeypatch.setattr(module, "_answers", answers)
        return found

    def test_one_that_does_not_is_named(
        self, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(str(tmp_path))
        with Lease(store):
            monkeypatch.setattr(ray, "nodes", lambda: [HEAD, node("a", CPU=1), node("c", CPU=1)])
            check_shared(store)
            assert asked == ["a", "c"]
            for others in ([node("a", CPU=1), node("b", CPU=1)], [node("b", CPU=1)]):
                monkeypatch.setattr(ray, "nodes", lambda others=others: [HEAD, *others])
                with pytest.raises(UsageError, match="of this machine, which b of the cluster"):
                    check_shared(store)

    def test_nobody_is_asked_about_a_bucket_or_by_a_single_node(
        self, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: [node("a", CPU=1), node("b", CPU=1)])
        check_shared(Store("s3://bucket/models"))
        monkeypatch.setattr(ray, "nodes", lambda: [node("h", CPU=1), node("a", alive=False)])
        check_shared(Store(str(tmp_path)))
        assert not asked
