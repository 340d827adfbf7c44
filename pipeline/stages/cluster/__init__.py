"""Ray itself: found by its address, joined or started, asked to grow, and what its nodes have."""
