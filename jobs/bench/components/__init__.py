"""Benchmarks of single parts: the network, decoding, listing, planning."""
