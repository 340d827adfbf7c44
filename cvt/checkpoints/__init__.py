"""Published checkpoints: where they are, how each layout names its tensors, and how they become a model."""
