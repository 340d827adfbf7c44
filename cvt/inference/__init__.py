"""The forms of the network that run fast: folded, packed, compiled, in another runtime or exported."""
