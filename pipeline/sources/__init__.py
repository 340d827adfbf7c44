"""What is in the input, and its bytes."""
