"""Padding to a fixed shape, with eager PyTorch in place of a runtime; and CUDA graphs on a GPU."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from cvt import CvtConfig, CvtForImageClassification
from cvt.inference.cuda_graph import CudaGraphCvt
from cvt.inference.fixed_shape import FixedShape, pad_batch
from cvt.inference.network import InferenceCvt
from cvt.interface.outputs import CvtOutput
from tests.support.models.oracle import SMALL, difference, images, randomise


class Recorder(FixedShape):
    """Runs a network eagerly, and writes down what a runtime would have been asked for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.prepared: list[tuple[int, ...]] = []
        self.batches: list[int] = []

    def prepare(self, shape: tuple[int, ...]) -> None:
        self.prepared.append(shape)

    def run(self, pixel_values: Tensor) -> CvtOutput:
        padded = pad_batch(pixel_values, self.shape[0])
        self.batches.append(len(padded))
        out: CvtOutput = self.network(padded)
        return out


@pytest.fixture(scope="module")
def model() -> CvtForImageClassification:
    model = CvtForImageClassification(CvtConfig.from_dict(SMALL | {"depth": [1, 1, 1]}))
    randomise(model, seed=0)
    return model.eval()


@torch.inference_mode()
def test_smaller_batches_are_padded_and_cut(model: CvtForImageClassification) -> None:
    fixed = Recorder(InferenceCvt(model))
    for batch in (3, 1, 2, 3):
        x = images(batch, 32, 48, seed=batch)
        out, expected = fixed(x), model(x)
        assert difference(out.logits, expected.logits) < 1e-4
        assert difference(out.embedding, expected.embedding) < 1e-4
    assert fixed.prepared == [(3, 3, 32, 48)]
    assert fixed.batches == [3, 3, 3, 3]


@torch.inference_mode()
def test_an_empty_batch_is_padded_to_one_image(model: CvtForImageClassification) -> None:
    fixed = Recorder(InferenceCvt(model))
    assert fixed(images(0, 32, 32)).logits.shape == (0, 7)
    assert fixed(images(1, 32, 32)).embedding.shape == (1, 48)
    assert fixed.prepared == [(1, 3, 32, 32)]


@torch.inference_mode()
def test_larger_batches_and_other_sizes_prepare_again(model: CvtForImageClassification) -> None:
    fixed = Recorder(InferenceCvt(model))
    for size in [(1, 32, 32), (2, 32, 32), (1, 32, 48), (1, 32, 48)]:
        assert len(fixed(images(*size)).logits) == size[0]
    assert fixed.prepared == [(1, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 48)]


@torch.inference_mode()
def test_a_copy_prepares_for_itself(model: CvtForImageClassification) -> None:
    fixed = Recorder(InferenceCvt(model))
    x = images(2, 32, 32)
    expected = fixed(x)
    copied = pickle.loads(pickle.dumps(fixed))
    assert copied.shape == (0, 0, 0, 0)
    assert torch.equal(copied(x).logits, expected.logits)
    assert len(copied.prepared) == 2


def test_no_image_is_no_batch(model: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match=r"pixel_values must be \(B, 3, H, W\)"):
        Recorder(InferenceCvt(model))(torch.zeros(3, 32, 32))


def test_a_cuda_graph_of_a_network_on_the_cpu_is_refused(model: CvtForImageClassification) -> None:
    with pytest.raises(ValueError, match="a network on a CUDA device, not cpu"):
        CudaGraphCvt(InferenceCvt(model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_a_cuda_graph_is_equal(model: CvtForImageClassification, dtype: torch.dtype) -> None:
    """Results of one call outlive the next; smaller batches follow larger ones."""
    fast = CudaGraphCvt(InferenceCvt(model).to("cuda", dtype))
    bound = 1e-4 if dtype == torch.float32 else 0.1
    calls = [images(3, 64, 64, seed=1), images(1, 64, 64, seed=2), images(2, 48, 80, seed=3)]
    found = [fast(x.pin_memory()).logits for x in calls]
    for logits, x in zip(found, calls, strict=True):
        assert difference(logits.cpu(), model(x).logits) < bound


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@torch.inference_mode()
def test_compiled_on_a_gpu_is_equal(model: CvtForImageClassification) -> None:
    fast = model.optimize(device="cuda", compile=True)
    assert isinstance(fast, CudaGraphCvt)
    x = images(2, 64, 64)
    assert difference(fast(x).logits.cpu(), model(x).logits) < 1e-4
