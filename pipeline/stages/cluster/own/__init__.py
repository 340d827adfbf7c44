"""A Ray that a run starts for itself: only what it needs of it, and workers that start at once."""
