"""The inference graph in int8: OpenVINO's, quantised after training by NNCF.

How far that drifts depends on the weights and on the calibration images: look at your own before
you rely on it (`python -m jobs.bench network --model SOURCE --only int8`, for a first look).

Measured against float32, the demo's trained model on 5,000 test images of Fashion-MNIST, calibrated
with 300 training images: the same class for 99.94 %, accuracy 91.70 % instead of 91.68 %, cosine of
embeddings 0.998 at least and 0.99996 in the mean. CvT-13 with random weights, on 32 synthetic
images after 32 others: the same class for 97 %, cosine 0.993 at least and 0.999 in the mean.
"""

import io
import logging
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from cvt.inference.openvino_graph import OpenVinoGraph, to_openvino

# Images in one calibration step; the ranges of what they give are averaged over the steps.
_STEP = 8


def quantized(network: nn.Module, calibration: Tensor | None) -> OpenVinoGraph:
    """A graph whose linear maps multiply in int8; to make it takes a minute for CvT-13.

    Weights are int8 per output channel, symmetric; activations are int8 per tensor, with ranges
    taken from calibration images. Convolutions, attention and the classifier stay as they
    are: with them, as by NNCF's defaults, the least cosine of the demo's model falls to 0.983.
    In what floating point they compute, `OpenVinoCvt` decides on the CPU that runs them.
    Weights and activations are balanced before (SmoothQuant, arXiv 2211.10438), and biases are
    corrected after.

    Args:
        network: In float32 on the CPU; any that returns a CvtOutput.
        calibration: Normalised images (N, 3, H, W) like those to come, some hundreds of them.

    Raises:
        ImportError: without the openvino extra.
        ValueError: without calibration images.
    """
    if find_spec("nncf") is None:
        raise ImportError("int8 needs NNCF: pip install openvino nncf")
    if calibration is None or len(calibration) < 2:
        raise ValueError("int8 needs calibration=: normalised images (N, 3, H, W), N > 1")
    images = calibration.float().cpu()
    _, channels, height, width = images.shape
    graph = to_openvino(network, (-1, channels, height, width))
    return OpenVinoGraph.of(_quantized(graph, images), (height, width))


def _quantized(graph: Any, images: Tensor) -> Any:
    import nncf

    nncf.set_log_level(logging.ERROR)
    linear = [op for op in graph.get_ordered_ops() if op.get_type_name() == "MatMul"]
    kept = nncf.IgnoredScope(
        types=["Convolution", "GroupConvolution", "ScaledDotProductAttention"],
        names=[linear[-1].get_friendly_name()],  # the classifier, where there is one
    )
    steps = [step.numpy() for step in images.split(_STEP)]
    with redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset(steps),
            subset_size=len(steps),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=kept,
        )
