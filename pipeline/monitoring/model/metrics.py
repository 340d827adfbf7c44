"""What the metrics of a model are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_sets(metrics: Mapping[str, Any]) -> bool:
    """Whether images may have several labels, by the content of metrics.json."""
    return "micro_f1" in metrics
