"""What an epoch is judged by, against scikit-learn's measures."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from pipeline.stages.train.measures import held_against


def test_of_one_class() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.arange(20) % 4
    loss, right = held_against(logits, targets)
    assert right / 20 == accuracy_score(targets, logits.argmax(dim=1))
    assert loss / 20 == pytest.approx(log_loss(targets, logits.softmax(dim=1), labels=range(4)))


def test_of_sets_all_classes_must_be_right() -> None:
    logits = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    targets = (torch.arange(40).view(20, 2) % 3 == 0).long()
    loss, right = held_against(logits, targets)
    assert 0 < right < 20
    assert right / 20 == accuracy_score(targets, logits.sigmoid() >= 0.5)
    each = [log_loss(targets[:, n], logits[:, n].sigmoid(), labels=[0, 1]) for n in range(2)]
    assert loss / 20 == pytest.approx(sum(each) / 2)
