"""The formats of input files: what tells each, and what is in it."""
