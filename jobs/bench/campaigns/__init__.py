"""Benchmarks of whole runs over sizes, nodes or two versions of the code."""
