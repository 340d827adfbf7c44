"""What a classifier's logits mean: the loss in training, the scores in inference."""

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.config import CvtConfig


def classification_loss(config: CvtConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, binary cross entropy or mean squared error, chosen as transformers does.

    Without a problem_type: regression for a single output, single label for integer labels,
    multi label for the rest.
    """
    kind = config.problem_type
    if kind is None:
        integral = labels.dtype in (torch.int64, torch.int32)
        kind = "single_label_classification" if integral else "multi_label_classification"
        kind = "regression" if config.num_labels == 1 else kind
    if kind == "single_label_classification":
        return F.cross_entropy(logits, labels.view(-1).long())
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.mse_loss(logits, labels.view_as(logits).to(logits.dtype))
