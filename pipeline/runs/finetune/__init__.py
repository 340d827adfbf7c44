"""Models that are trained on labels, held against held-out images, and published."""
