"""Checkpoints: where they come from, how each layout names tensors, how they become a model."""
