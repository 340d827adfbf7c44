"""What the driver of a training and its workers tell each other, and over which network."""
