"""Made-up images and models to measure with."""
