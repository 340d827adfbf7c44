"""What each stage can do alone, what the whole reaches, and what limits it."""
