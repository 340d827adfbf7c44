"""Every name below OUT, once."""

from __future__ import annotations

OPEN = "_open"
RUNS = "runs"
DATA = "data"
LATEST = "latest.json"
CLASSES_FILE = "classes.json"
"""Beside the manifest: the names of the classes, by ``label_id``."""
