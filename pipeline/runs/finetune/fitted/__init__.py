"""What was learned from labelled images, and what it says of each of them."""
