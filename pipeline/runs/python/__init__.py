"""What Python programs and notebooks call; ``pipeline`` itself offers it."""
