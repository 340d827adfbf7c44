"""The forms of the network that run fast: folded, packed, compiled, exported."""
