"""Published checkpoints: where they are, how layouts name tensors, how they become a model."""
