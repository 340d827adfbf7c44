"""Bytes to pixels of the size that a model takes, faster than the reference and near it."""
