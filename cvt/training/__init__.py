"""What is learned from labels, and how good it is."""
