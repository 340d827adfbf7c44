"""What comes after the network: the loss in training, scores and pooling in inference."""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.config import CvtConfig

SCORES: Final = ("softmax", "sigmoid", "logits")
POOLINGS: Final = ("cls_norm", "cls", "mean")


def widened(x: Tensor) -> Tensor:
    """At least in float32: half precision is computed in, not answered in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def classification_loss(config: CvtConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, binary cross entropy or mean squared error, chosen as transformers does.

    Without a problem_type: regression for a single output, single-label for integer labels,
    multi-label for the rest.

    Raises:
        ValueError: labels are not integers, where a single one is to be found.
    """
    kind = config.problem_type
    if kind is None:
        integral = labels.dtype in (torch.int64, torch.int32)
        kind = "single_label_classification" if integral else "multi_label_classification"
        kind = "regression" if config.num_labels == 1 else kind
    if kind == "single_label_classification":
        if labels.is_floating_point():
            raise ValueError(f"labels must be class indices (integers), not {labels.dtype}")
        return F.cross_entropy(logits, labels.view(-1).long())
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.mse_loss(logits, labels.view_as(logits).to(logits.dtype))


def check_pooling(config: CvtConfig, pooling: str) -> None:
    """Check that the model has this way to make one vector of an image.

    Raises:
        ValueError: it does not; the message lists those that it has.
    """
    choices = POOLINGS if config.cls_token[-1] else ("cls_norm", "mean")
    if pooling not in choices:
        raise ValueError(
            f"pooling must be one of {', '.join(choices)} for this model, not {pooling!r}"
        )


def default_scores(config: CvtConfig) -> str:
    """The kind of scores that fits the head, chosen as transformers' pipeline does."""
    if config.problem_type == "regression":
        return "logits"
    multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return "sigmoid" if multi_label else "softmax"


def to_scores(logits: Tensor, kind: str) -> Tensor:
    """Logits (B, N) as scores (B, N) float32, of a kind named in SCORES.

    Raises:
        ValueError: SCORES does not name the kind.
    """
    if kind not in SCORES:
        raise ValueError(f"scores must be one of {', '.join(SCORES)}, not {kind!r}")
    logits = logits.float()
    if kind == "logits":
        return logits
    return logits.sigmoid() if kind == "sigmoid" else logits.softmax(dim=1)


def labels_above(
    scores: Tensor, thresholds: float | Sequence[float], labels: Sequence[str]
) -> list[list[str]]:
    """For each row of scores (B, N), the names of the classes that reach their threshold.

    Best first. ``thresholds`` is one number for all classes, or N of them.

    Raises:
        ValueError: ``thresholds`` has another length.
    """
    limits = torch.as_tensor(thresholds, dtype=scores.dtype, device=scores.device)
    if limits.ndim > 1 or limits.numel() not in (1, len(labels)):
        raise ValueError(f"thresholds must be 1 or {len(labels)} numbers, not {limits.numel()}")
    order = scores.argsort(dim=1, descending=True).tolist()
    reached = (scores >= limits).tolist()
    return [
        [labels[i] for i in ranking if row[i]] for ranking, row in zip(order, reached, strict=True)
    ]
