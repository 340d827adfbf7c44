"""What the network is made of: its blocks, and what comes after them."""
