"""What a network that learns is shown of its images."""
