"""The actors: one replica of the network each, on a CPU or a GPU."""
